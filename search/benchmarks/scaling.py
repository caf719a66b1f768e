"""How many candidates an hour a search evaluates with one GPU, two, four … of one machine.

Random search of `configs/h100_small.yaml`, which tries the same candidates in the same order with any number of workers. A rate is counted
from when every worker has ended one candidate, as the first waits for imports, until the last has ended. No time passes where a run rests.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from profiler.device import open_device
from profiler.gpus import devices
from search.benchmarks import runs as runs_of
from search.ledger import Entry
from search.spent import searched, worker_seconds

_TIME_S = 150.0
Figures = dict[str, float | int | str]


def more_devices(device: str, console: Console) -> tuple[Figures, Any, dict[str, bytes], list[Path]]:
    """Figures, the candidates of every search, no files, and the folders. On a CPU two workers share it, to see that the benchmark runs."""
    config, kind = runs_of.load(device), open_device(device).torch_device.type
    most = 2 if kind == "cpu" else len(devices(device))
    counts = [2**power for power in range(most.bit_length())]
    runs_of.prepare_kernels(device, console)
    runs: dict[int, Sequence[Entry]] = {}
    figures: Figures = {}
    folders: list[Path] = []
    for workers in counts:
        told = config.model_copy(update={"workers": workers, "time_s": _TIME_S, "candidates": 1000})
        entries, folder = runs_of.searched(told, name=f"scaling-{workers}", searcher="random", console=console)
        folders.append(folder)
        spent = worker_seconds(entries, workers=workers, now=None)
        runs[workers] = entries
        figures |= {
            f"workers{workers}.candidates": sum(entry.evaluation is not None for entry in entries),
            f"workers{workers}.candidates_per_hour": 3600 * rate(entries, workers),
            f"workers{workers}.idle": spent["idle"] / sum(spent.values()),
        }
    for workers in counts[1:]:
        figures[f"workers{workers}.faster"] = rate(runs[workers], workers) / rate(runs[1], 1)
        figures[f"workers{workers}.same_candidates_slower"] = slower(runs[workers], runs[1], workers)
    figures = {name: "too few candidates" if value != value else value for name, value in figures.items()}  # JSON has no NaN
    return figures, {str(workers): [runs_of.row(entry) for entry in entries] for workers, entries in runs.items()}, {}, folders


def rate(entries: Sequence[Entry], workers: int) -> float:
    """Candidates a second, from the end of the `workers`th to the end of the last; NaN where no more have ended."""
    ended = sorted(entry.ended for entry in entries if entry.ended)
    if len(ended) <= workers:
        return float("nan")
    return (len(ended) - workers) / (searched(entries) - searched(entries, ended[workers - 1]))


def slower(entries: Sequence[Entry], alone: Sequence[Entry], workers: int) -> float:
    """Seconds that candidates take here over those that the same take in `alone`, without the first `workers`; NaN where there are none."""
    times = [{entry.number: _seconds(entry) for entry in found if entry.ended and entry.attempts} for found in (entries, alone)]
    both = [number for number in times[0].keys() & times[1].keys() if number >= workers]
    return fmean(times[0][number] for number in both) / fmean(times[1][number] for number in both) if both else float("nan")


def _seconds(entry: Entry) -> float:
    return (entry.ended - entry.attempts[-1].at).total_seconds() if entry.ended else float("nan")
