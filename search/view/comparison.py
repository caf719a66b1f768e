"""A comparison of two architectures, for a terminal."""

from statistics import median

from rich.console import Console

from profiler.measuring.comparison import Comparison


def print_comparison(console: Console, names: tuple[str, str], found: Comparison) -> None:
    ms = [
        f"{name} {median(times):.4g} ms (from {min(times):.4g} to {max(times):.4g})"
        for name, times in zip(names, (found.a_ms, found.b_ms), strict=True)
    ]
    console.print(f"median of {len(found.a_ms)} processes: {', '.join(ms)}", soft_wrap=True, markup=False)
    console.print(
        f"{names[1]} takes {found.ratio:.4f} times as long, {found.confidence:.0%} interval {found.low:.4f} to {found.high:.4f}; "
        f"differences below {found.indistinct:.1%} are none",
        soft_wrap=True,
        markup=False,
    )
    verdict = {"faster": "is faster", "slower": "is slower", "cannot tell": "cannot be told apart in speed"}[
        found.verdict
    ]
    what = f"{names[0]} and {names[1]}" if found.verdict == "cannot tell" else names[1]
    console.print(f"{what} {verdict}", soft_wrap=True, markup=False)
