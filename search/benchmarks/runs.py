"""Searches as benchmarks make them: a configuration for the kind of device, run by name, and rows of a record."""

from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from profiler.device import device_names, open_device
from search import config as config_module
from search import run
from search.config import RunConfig
from search.ledger import Entry, open_ledger
from search.run_folder import find_folder
from search.searchers import SearcherSettings

RESULTS = Path("results")
_CONFIGS = {"cuda": Path("configs/h100_small.yaml"), "cpu": Path("configs/quick.yaml")}  # the latter to see that it runs


def config_path(device: str) -> Path:
    """The configuration of the searches on that kind of device."""
    return _CONFIGS[open_device(device).torch_device.type]


def load(device: str) -> RunConfig:
    """That configuration, with a worker for each GPU that `device` stands for; on a CPU as many as it says."""
    config = config_module.load(config_path(device))
    workers = config.workers if device == "cpu" else len(device_names(device))
    return config.model_copy(update={"device": device, "workers": workers})


def searched(config: RunConfig, *, name: str, searcher: str, console: Console) -> tuple[Entry, ...]:
    """What the search of that name found; it goes on where an earlier one ended."""
    if (RESULTS / name).exists():
        folder = find_folder(RESULTS, name)
    else:
        config = config.model_copy(update={"searcher": SearcherSettings.model_validate({"name": searcher}), "keep_weights": "none"})
        folder = run.start(config, results=RESULTS, name=name, console=console, executor="ray")
    run.go_on(folder, executor="ray", address=None, console=console)
    return open_ledger(folder.ledger).entries()


def row(entry: Entry) -> dict[str, Any]:
    """A candidate in a record."""
    found = entry.evaluation
    return {
        "id": entry.number,
        "architecture": entry.architecture.shorthand,
        "width": entry.architecture.width,
        "origin": entry.origin,
        "begun": _iso(entry.attempts[-1].at if entry.attempts else None),
        "ended": _iso(entry.ended),
        "status": found.status if found else "unfinished",
        "reason": found.reason if found else "",
        "metrics": dict(found.metrics) if found else {},
        "seconds": dict(found.seconds) if found else {},
    }


def _iso(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds") if moment else ""
