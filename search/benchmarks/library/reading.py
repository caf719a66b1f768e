"""Benchmark: the commands that read a run, on one of 10,000 candidates whose evaluations are made up.

Each command is a process of its own, as a user starts it: what it imports counts. `import_torch_s` tells how
fast the machine is; only `show` needs PyTorch. All figures are medians.

    frontrunner bench reading
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from profiler.process.child_process import own_path
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.made_up_run import kept_run
from search.benchmarks.record import RESULTS
from search.benchmarks.tables import print_figures
from search.runs.ledger import open_ledger

CANDIDATES, TIMES = 10_000, 5
# By the name in the record: the arguments behind `frontrunner`, with RUN for the run.
COMMANDS = {
    "frontier": "frontier RUN",
    "frontier_json": "frontier RUN --json",
    "watch": "watch RUN --once",
    "status": "status RUN",
    "show": "show RUN 5",
}


def reading(device: str, console: Console) -> Measured:
    """Seconds of each command, on the clock and of the processor."""
    folder = kept_run(CANDIDATES, console)
    program = [sys.executable, "-P", "-m", "search.cli.main"]
    lines = {
        name: [*program, *command.replace("RUN", folder.name).split(), "--results", str(RESULTS)]
        for name, command in COMMANDS.items()
    }
    lines["import_torch"] = [sys.executable, "-P", "-c", "import torch"]
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
    # By turns: the speed of a machine changes from one minute to the next.
    for _ in range(TIMES):
        for name, line in lines.items():
            samples[name].append(_timed(line))
    figures: Figures = {"candidates": len(open_ledger(folder.ledger).entries()), "times": TIMES}
    for name, pairs in samples.items():
        wall, cpu = zip(*pairs, strict=True)
        figures[f"{name}_s"] = round(statistics.median(wall), 2)
        figures[f"{name}_cpu_s"] = round(statistics.median(cpu), 2)
    print_figures(console, figures)
    return Measured(figures, samples, folders=[folder.path])


def _timed(line: Sequence[str]) -> tuple[float, float]:
    """Seconds of a process on the clock, and of the processor. Raises CalledProcessError."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    # Without the variable, as for most users, a module is compiled once and not in each process.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = own_path()
    subprocess.run(  # noqa: S603 - our own command
        line, env=environment, stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


BENCHMARK = Benchmark("reading", "the commands that read a run of ten thousand candidates", reading)
