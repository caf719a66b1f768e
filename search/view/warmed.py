"""Shows how kernels are prepared, and what became of them, in a terminal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from profiler.kernels.prepare import Warmed


@contextmanager
def shown_warming(console: Console, total: int) -> Iterator["Warming"]:
    """Shows the progress with the time left, where the console is a terminal.

    total: number of shapes.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Warming(progress, total)


class Warming:
    """The two parts of preparing kernels: shapes compile, and then shapes run."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._compiling = progress.add_task("compile", total=total)
        self._running = progress.add_task("run and tune", total=total, start=False)

    def compiled(self, done: int, total: int) -> None:
        self._progress.update(self._compiling, completed=done)
        if done == total:
            self._progress.start_task(self._running)

    def ran(self) -> None:
        self._progress.advance(self._running)


def print_warmed(console: Console, done: Warmed) -> None:
    """Prints one line for an operator's kernels: their backend and time, or the problem."""
    what = done.problem or f"{done.backend:<14}{done.seconds:6.1f} s, start {done.start_s:.1f} s"
    console.print(f"{done.operator:<16}{what}  {done.shape}", soft_wrap=True, markup=False)


def print_warmed_total(console: Console, done: Sequence[Warmed], seconds: float) -> None:
    """Prints the counts of shapes: all, tuned with others, failed; and the time (s)."""
    shares, failed = sum(each.shares for each in done), sum(bool(each.problem) for each in done)
    counts = [
        f"{len(done)} shapes",
        *([f"{shares} tuned with others"] if shares else []),
        *([f"{failed} could not be prepared"] if failed else []),
    ]
    console.print(f"{', '.join(counts)}; {seconds:.0f} s", soft_wrap=True, markup=False)
