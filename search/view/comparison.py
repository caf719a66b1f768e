"""Prints the comparison of two architectures in a terminal."""

from statistics import median

from rich.console import Console

from profiler.measuring.comparison import Comparison


def print_comparison(console: Console, names: tuple[str, str], comparison: Comparison) -> None:
    """Prints the times of both, their ratio, and the verdict. names: of the two architectures, in order."""
    ms = [
        f"{name} {median(times):.4g} ms (from {min(times):.4g} to {max(times):.4g})"
        for name, times in zip(names, (comparison.a_ms, comparison.b_ms), strict=True)
    ]
    console.print(
        f"median of {len(comparison.a_ms)} processes: {', '.join(ms)}", soft_wrap=True, markup=False
    )
    console.print(
        f"{names[1]} takes {comparison.ratio:.4f} times as long, "
        f"{comparison.confidence:.0%} interval {comparison.low:.4f} to {comparison.high:.4f}; "
        f"differences below {comparison.indistinct:.1%} do not count",
        soft_wrap=True,
        markup=False,
    )
    verdict = {"faster": "is faster", "slower": "is slower", "cannot tell": "cannot be told apart in speed"}[
        comparison.verdict
    ]
    what = f"{names[0]} and {names[1]}" if comparison.verdict == "cannot tell" else names[1]
    console.print(f"{what} {verdict}", soft_wrap=True, markup=False)
