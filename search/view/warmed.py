"""Prints prepared kernels in a terminal."""

from rich.console import Console

from profiler.kernels.warm import Warmed


def print_warmed(console: Console, done: Warmed) -> None:
    """Prints one line for an operator's kernels: their backend and time, or the problem."""
    what = done.problem or f"{done.backend:<14}{done.seconds:6.1f} s, start {done.start_s:.1f} s"
    console.print(f"{done.operator:<16}{what}  {done.shape}", soft_wrap=True, markup=False)
