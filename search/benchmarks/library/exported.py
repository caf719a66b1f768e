"""Benchmark: a search whose winners leave, and three winners in the engines that they are exported to.

On a CPU it is the search of configs/laptop.yaml, which measures every candidate in llama.cpp itself. On a GPU
it is that of configs/h100_small.yaml, for three minutes and of models that transformers holds. The fastest,
the best and the middle one of the frontier are then measured as `bench engines` does: in our own runtime
and, through their exported files with random weights, in the engines.

    pip install transformers xllamacpp gguf
    frontrunner bench exported --device cpu
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from operators import Architecture
from profiler.device.device import open_device
from profiler.device.names import TRANSFORMERS
from search.benchmarks import runs as runs_of
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.library.engines import measured_here_and_there, require_engines, sample
from search.config.run import RunConfig, load
from search.objectives import Objective
from search.runs.entry import Entry
from search.runs.frontier import scored
from search.runs.worker_time import searched

GPU_TIME_S = 180.0
WINNERS = 3


def search_and_export(device: str, console: Console) -> Measured:
    """The search's figures, its frontier, and what three winners take here and in each engine."""
    kind = open_device(device).torch_device.type
    require_engines(kind)
    config = _config(kind, device)
    if kind == "cuda":
        runs_of.prepare_kernels(device, console)
    entries, path = runs_of.searched(config, name="exported", searcher=config.searcher.name, console=console)
    objectives = config.parsed_objectives()
    frontier = scored(entries, objectives).frontier()
    winners = spread(at_least(WINNERS, entries, objectives), runs_of.latency(config))
    profiles = measured_here_and_there(
        [
            (f"candidate {entry.number}", entry.architecture)
            for entry in winners
            if isinstance(entry.architecture, Architecture)
        ],
        device,
        console,
    )
    ended = [entry.evaluation for entry in entries if entry.evaluation]
    figures: Figures = {
        "candidates": len(entries),
        "ok": sum(found.status == "ok" for found in ended),
        "frontier": len(frontier),
        "search_s": round(searched(entries), 1),
        "profile_s_per_candidate": sum(found.seconds.get("profile", 0.0) for found in ended) / len(ended),
    }
    rows = [{**runs_of.row(entry), "frontier": entry in frontier} for entry in entries]
    return Measured(
        figures, {"search": rows, "winners": [sample(profile) for profile in profiles]}, folders=[path]
    )


def at_least(count: int, entries: Sequence[Entry], objectives: Sequence[Objective]) -> list[Entry]:
    """The frontier. One of fewer than `count` is filled up from the frontier of all others."""
    frontier = scored(entries, objectives).frontier()
    others = [entry for entry in entries if entry not in frontier]
    return [*frontier, *scored(others, objectives).frontier()[: max(0, count - len(frontier))]]


def spread(frontier: Sequence[Entry], latency: str) -> list[Entry]:
    """Up to three of the frontier, the fastest first: the ends, and the one that stands between them."""
    by_time = sorted(frontier, key=lambda entry: entry.evaluation.metrics[latency] if entry.evaluation else 0)
    places = {round(step * (len(by_time) - 1) / (WINNERS - 1)) for step in range(WINNERS)}
    return [by_time[place] for place in sorted(places)]


def _config(kind: str, device: str) -> RunConfig:
    if kind == "cpu":
        return load(Path("laptop"))
    config = runs_of.load(device)
    space = config.space.model_copy(update={"exportable_to": (TRANSFORMERS,)})
    return config.model_copy(update={"space": space, "time_s": GPU_TIME_S})


BENCHMARK = Benchmark(
    "exported",
    "a search of models that engines can load, and three winners measured here and in the engines",
    search_and_export,
    needs={"transformers": "pip install transformers"},
)
