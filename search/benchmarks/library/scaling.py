"""Benchmark: candidates an hour that a search evaluates with one GPU of a machine, two, four and so on.

Workers share the host's cores and disk, so twice as many GPUs need not be twice as fast.

    frontrunner bench scaling --device cuda

The search is random search of configs/h100_small.yaml, which tries the same candidates in the same order with
any number of workers. All candidates are trained once and to the end, as early stops and repeats would depend
on the order in which candidates end. Rates are taken between the same two counts of ended candidates. The
first count leaves two candidates to each worker, as the first ones load and tune kernels. The second leaves
every worker something to do. Time in which no process drives the run does not count. On a CPU two workers
share it, which shows only that the benchmark runs.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console

from profiler.device.device import open_device
from profiler.device.gpus import devices
from search.benchmarks import runs as runs_of
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.runs.entry import Entry
from search.runs.worker_time import searched

_CANDIDATES = 28


def more_devices(device: str, console: Console) -> Measured:
    """Candidates per hour for each number of workers, and the candidates of every search."""
    config, kind = runs_of.load(device), open_device(device).torch_device.type
    most = 2 if kind == "cpu" else len(devices(device))
    counts = [2**power for power in range(most.bit_length())]
    candidates, whole = max(_CANDIDATES, 4 * counts[-1]), config.fidelity.model_copy(update={"rungs": ()})
    runs_of.prepare_kernels(device, console)
    runs: dict[int, Sequence[Entry]] = {}
    folders: list[Path] = []
    # Most workers first: kernels that are still tuned on the way are tuned in that search.
    for workers in reversed(counts):
        settings = config.model_copy(
            update={
                "workers": workers,
                "time_s": None,
                "candidates": candidates,
                "repeats": 0.0,
                "fidelity": whole,
            }
        )
        runs[workers], folder = runs_of.searched(
            settings, name=f"scaling-{workers}", searcher="random", console=console
        )
        folders.append(folder)
    window = (2 * counts[-1], candidates - counts[-1])
    figures: Figures = {"from_candidate": window[0], "to_candidate": window[1]}
    for workers in counts:
        figures[f"workers{workers}.candidates_per_hour"] = 3600 * rate(runs[workers], window)
    for workers in counts[1:]:
        figures[f"workers{workers}.faster"] = rate(runs[workers], window) / rate(runs[1], window)
        figures[f"workers{workers}.same_candidates_slower"] = slower(runs[workers], runs[1], window)
    rows = {str(workers): [runs_of.row(entry) for entry in runs[workers]] for workers in counts}
    return Measured(figures, rows, folders=folders)


def rate(entries: Sequence[Entry], window: tuple[int, int]) -> float:
    """Candidates a second, from the end of the first of these counts to that of the second."""
    first, last = window
    ended = sorted(entry.ended for entry in entries if entry.ended)
    return (last - first) / (searched(entries, ended[last - 1]) - searched(entries, ended[first - 1]))


def slower(entries: Sequence[Entry], alone: Sequence[Entry], window: tuple[int, int]) -> float:
    """Mean seconds of the candidates numbered in the window, over those of the same candidates in `alone`."""
    there, here = (
        [
            (entry.ended - entry.attempts[-1].at).total_seconds()
            for entry in some
            if entry.ended and window[0] <= entry.number < window[1]
        ]
        for some in (alone, entries)
    )
    return fmean(here) / fmean(there)


BENCHMARK = Benchmark("scaling", "candidates an hour with one GPU, two, four and so on", more_devices)
