"""Searches as benchmarks run them: the configuration, the run in its folder, and the rows of a record."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from operators import Architecture
from profiler.device.device import open_device
from profiler.device.gpus import devices
from profiler.kernels.warm import warm
from search.benchmarks.record import RESULTS, folder
from search.config import run as config_module
from search.config.run import RunConfig
from search.config.searcher import SearcherSettings
from search.runs import run
from search.runs.ended import Ended
from search.runs.entry import Entry
from search.runs.folder import RunFolder, find_folder
from search.runs.warming import warm_jobs
from search.studies.experiment import ExperimentSettings
from search.view.progress import display, print_event
from search.view.run import print_ended, write_plots

# On a CPU the benchmarks only show that they run.
_CONFIGS = {"cuda": Path("h100_small"), "cpu": Path("quick")}


class MemberSettings(ExperimentSettings):
    """The settings with which members of a space are trained and measured beside a search."""

    kind: ClassVar[str] = "members"


def member_settings(config: RunConfig, *, tokens: int) -> MemberSettings:
    """Returns the settings of the run with another number of tokens."""
    return MemberSettings(
        seeds=(config.seed,),
        device=config.device,
        deadline_s=config.deadline_s,
        data=config.data,
        proxy=config.proxy.model_copy(update={"tokens": tokens}),
        profile=config.profile,
    )


def config_path(device: str) -> Path:
    """Returns the configuration of the searches on that kind of device."""
    return _CONFIGS[open_device(device).torch_device.type]


def load(device: str, configs: Mapping[str, Path] = _CONFIGS) -> RunConfig:
    """Loads the configuration of the searches on `device`.

    It has a worker for each GPU of `device`. On a CPU it keeps its own number of workers.

    configs: what to load on each kind of device.
    """
    config = config_module.load(configs[open_device(device).torch_device.type])
    workers = config.workers if device == "cpu" else len(devices(device))
    return config.model_copy(update={"device": device, "workers": workers})


def latency(config: RunConfig) -> str:
    """Returns the metric of the objective that is a decode step's time."""
    return next(
        objective.metric
        for objective in config.parsed_objectives()
        if objective.metric.startswith("decode_ms@")
    )


def prepare_kernels(device: str, console: Console) -> float:
    """On a GPU, compiles and tunes the kernels that the configuration's searches need.

    Returns the seconds it took.
    """
    began = time.perf_counter()
    if device != "cpu":
        for done in warm(warm_jobs([str(config_path(device))], batches=None, tokens=None, device=device)):
            console.print(f"{done.operator}: {done.problem or f'{done.seconds:.1f} s'}", markup=False)
    return time.perf_counter() - began


def searched(
    config: RunConfig, *, name: str, searcher: str, console: Console
) -> tuple[tuple[Entry, ...], Path]:
    """Searches and returns the candidates and the run's folder.

    It continues a run of the same settings that ended early.
    """
    config = config.model_copy(
        update={"searcher": SearcherSettings.model_validate({"name": searcher}), "keep_weights": "none"}
    )
    path = folder(name, config, config.data, config.device)
    if path.exists():
        at = find_folder(RESULTS, path.name)
    else:
        at = run.start(
            config, results=RESULTS, name=path.name, executor="ray", on_event=partial(print_event, console)
        )
    return go_on(at, console).entries, at.path


def go_on(at: RunFolder, console: Console) -> Ended:
    """Drives a run to its end, and prints and draws its results."""
    with display(console) as show:
        ended = run.drive_to_end(
            at, executor="ray", address=None, on_progress=show, on_event=partial(print_event, console)
        )
    write_plots(ended)
    print_ended(console, ended)
    return ended


def statuses(entries: Sequence[Entry]) -> dict[str, int]:
    """Returns how many candidates ended with each status."""
    return dict(sorted(Counter(entry.evaluation.status for entry in entries if entry.evaluation).items()))


def row(entry: Entry) -> dict[str, Any]:
    """Returns a candidate as a row of a record."""
    found = entry.evaluation
    return {
        "id": entry.number,
        "architecture": entry.architecture.shorthand,
        "width": entry.architecture.width,
        "layers": entry.architecture.model_dump(mode="json", include={"layers"}, exclude_defaults=True)[
            "layers"
        ],
        "origin": entry.origin,
        "begun": _iso(entry.attempts[-1].at if entry.attempts else None),
        "ended": _iso(entry.ended),
        "status": found.status if found else "unfinished",
        "reason": found.reason if found else "",
        "metrics": dict(found.metrics) if found else {},
        "seconds": dict(found.seconds) if found else {},
    }


def recorded(row: Mapping[str, Any], config: RunConfig) -> Architecture:
    """Returns the candidate of a row, of a search with that configuration."""
    common = {"vocabulary": config.data.vocabulary, "normalized_head": config.space.normalized_head}
    return Architecture.model_validate({**common, "width": row["width"], "layers": row["layers"]})


def _iso(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds") if moment else ""
