"""Benchmarks whose records are committed: every figure in the documentation comes from one."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from operators.errors import ConfigError
from operators.files import write_whole
from profiler.device import open_device
from search import config as config_module
from search import run
from search.benchmarks.commit import commit
from search.benchmarks.decode import decode_published
from search.benchmarks.deployment import deploy
from search.benchmarks.folders import retire
from search.benchmarks.operators import operators_and_backends
from search.benchmarks.power import tell_apart
from search.benchmarks.repeat import repeat_anchor
from search.benchmarks.runs import row
from search.benchmarks.scaling import more_devices
from search.benchmarks.search import search_and_compare
from search.benchmarks.searchers import compare_searchers
from search.benchmarks.smollm2 import complete_and_score
from search.benchmarks.studies import (
    depth_width_law,
    learning_rates,
    mixers_alone_and_in_pairs,
    rank_study,
    weight_normalization,
)
from search.benchmarks.table import table_accuracy
from search.benchmarks.training import train_and_compare
from search.benchmarks.tuning import tune
from search.benchmarks.warm import warm_everything
from search.benchmarks.winners import train_longer
from search.frontier import frontier_of, hypervolume_gain
from search.ledger import open_ledger


@dataclass(frozen=True)
class Measured:
    """What a benchmark returns. figures: flat, units in the names. samples: what they were computed from. files: kept beside the record.

    folders: in which the same benchmark goes on for as long as its record is not written.
    """

    figures: Mapping[str, float | int | str]
    samples: Any
    files: Mapping[str, bytes] = field(default_factory=dict)
    folders: Sequence[Path] = ()


def quick(device: str, console: Console) -> Measured:
    """The search of configs/quick.yaml from start to end: how long it takes and what it finds."""
    config = config_module.load(Path("configs/quick.yaml")).model_copy(update={"device": device})
    folder = run.start(
        config, results=Path("results"), name=f"bench-quick-{datetime.now():%Y%m%d-%H%M%S}", console=console
    )
    start = time.perf_counter()
    run.go_on(folder, executor="ray", address=None, console=console)
    seconds = time.perf_counter() - start
    entries, objectives = open_ledger(folder.ledger).entries(), config.parsed_objectives()
    gain = hypervolume_gain(entries, objectives, first=config.evolution.population)
    best = frontier_of(entries, objectives)
    scores = [entry.evaluation.proxy for entry in entries if entry.evaluation and entry.evaluation.proxy]
    spent = [entry.evaluation.seconds for entry in entries if entry.evaluation]
    figures: dict[str, float | int | str] = {
        "search_s": round(seconds, 1),
        "candidates": len(entries),
        "ok": sum(entry.evaluation is not None and entry.evaluation.status == "ok" for entry in entries),
        "frontier": len(best),
        "hypervolume": gain.final if gain else 0.0,
        "hypervolume_initial_population": gain.initial if gain else 0.0,
        "best_loss_nats_per_token": min(score.loss for score in scores),
        "unigram_loss_nats_per_token": scores[0].unigram_loss,
        "train_s_per_candidate": sum(item.get("train", 0.0) for item in spent) / len(spent),
        "profile_s_per_candidate": sum(item.get("profile", 0.0) for item in spent) / len(spent),
    }
    rows = [{**row(entry), "parents": entry.parents, "frontier": entry in best} for entry in entries]
    return Measured(figures, rows, {"png": folder.plot().read_bytes()})


def decode(device: str, console: Console) -> Measured:
    """Decoding of every published model: eager, from a CUDA graph, and against the memory's bandwidth."""
    return Measured(*decode_published(device, console))


def smollm2(device: str, console: Console) -> Measured:
    """A real model imported from GGUF: what it completes, and its perplexity on the newest addresses."""
    return Measured(*complete_and_score(device, console))


def operators(device: str, console: Console) -> Measured:
    """Every operator with each of its backends: see search/benchmarks/operators.py."""
    return Measured(*operators_and_backends(device, console))


def searchers(device: str, console: Console) -> Measured:
    """Searchers on problems with known answers, without training: see search/benchmarks/searchers.py."""
    return Measured(*compare_searchers(device, console))


def warm(device: str, console: Console) -> Measured:
    """How long kernels take to be ready: see search/benchmarks/warm.py."""
    return Measured(*warm_everything(device, console))


def tuning(device: str, console: Console) -> Measured:
    """Which configurations of kernels are worth trying: see search/benchmarks/tuning.py."""
    return Measured(*tune(device, console))


def training(device: str, console: Console) -> Measured:
    """Training throughput next to other libraries: see search/benchmarks/training.py."""
    return Measured(*train_and_compare(device, console))


def repeat(device: str, console: Console) -> Measured:
    """How far a measurement can be repeated by another process: see search/benchmarks/repeat.py."""
    return Measured(*repeat_anchor(device, console))


def power(device: str, console: Console) -> Measured:
    """How well two architectures are told apart: see search/benchmarks/power.py."""
    return Measured(*tell_apart(device, console))


def deployment(device: str, console: Console) -> Measured:
    """Nemotron-Flash's table of ten models on our runtime: see search/benchmarks/deployment.py."""
    return Measured(*deploy(device, console))


def table(device: str, console: Console) -> Measured:
    """How well the latency table predicts whole models: see search/benchmarks/table.py."""
    return Measured(*table_accuracy(device, console))


def law(device: str, console: Console) -> Measured:
    """The depth-width law of configs/law_….yaml, and how far off it is on shapes that were held out: see search/benchmarks/studies.py."""
    return Measured(*depth_width_law(device, console))


def mixers(device: str, console: Console) -> Measured:
    """What mixers are worth alone and in pairs, by configs/study_operators_….yaml: see search/benchmarks/studies.py."""
    return Measured(*mixers_alone_and_in_pairs(device, console))


def ranks(device: str, console: Console) -> Measured:
    """Whether short trainings order the architectures of configs/study_ranks_….yaml as long ones do: see search/benchmarks/studies.py."""
    return Measured(*rank_study(device, console))


def normalization(device: str, console: Console) -> Measured:
    """What weight normalization is worth for the families of configs/study_normalization_….yaml: see search/benchmarks/studies.py."""
    return Measured(*weight_normalization(device, console))


def rates(device: str, console: Console) -> Measured:
    """Whether the best learning rate of configs/study_rates_….yaml stays the same over widths: see search/benchmarks/studies.py."""
    return Measured(*learning_rates(device, console))


def search(device: str, console: Console) -> Measured:
    """A real search beside random search and published designs: see search/benchmarks/search.py."""
    return Measured(*search_and_compare(device, console))


def winners(device: str, console: Console) -> Measured:
    """What the recorded search found against published designs, trained longer: see search/benchmarks/winners.py."""
    return Measured(*train_longer(device, console))


def scaling(device: str, console: Console) -> Measured:
    """Candidates an hour with one, two, four … GPUs: see search/benchmarks/scaling.py."""
    return Measured(*more_devices(device, console))


BENCHMARKS: dict[str, Callable[[str, Console], Measured]] = {
    "quick": quick,
    "decode": decode,
    "smollm2": smollm2,
    "operators": operators,
    "searchers": searchers,
    "warm": warm,
    "tuning": tuning,
    "training": training,
    "repeat": repeat,
    "power": power,
    "deployment": deployment,
    "table": table,
    "law": law,
    "mixers": mixers,
    "ranks": ranks,
    "normalization": normalization,
    "rates": rates,
    "search": search,
    "winners": winners,
    "scaling": scaling,
}


def measure_and_write(name: str, *, device: str, out: Path | None, console: Console) -> Path:
    """Runs a benchmark and writes its record (JSON) to `out` -> that path. Raises ConfigError for an unknown name."""
    if name not in BENCHMARKS:
        raise ConfigError(f"unknown benchmark {name!r}: expected one of {', '.join(sorted(BENCHMARKS))}")
    opened = open_device(device)
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    measured = BENCHMARKS[name](device, console)
    out = out or Path("results/benchmarks") / opened.label.partition(":")[0] / f"{name}.json"
    record = {
        "name": name,
        "figures": dict(measured.figures),
        "device": opened.describe(),
        "started": started,
        "commit": commit(),
        "command": " ".join(["frontrunner", *sys.argv[1:]]),
        "samples": measured.samples,
    }
    write_whole(out, (json.dumps(record, indent=1) + "\n").encode())
    for suffix, content in measured.files.items():
        write_whole(out.with_suffix(f".{suffix}"), content)
    retire(measured.folders)
    return out
