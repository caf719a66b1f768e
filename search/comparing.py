"""`frontrunner compare`: is one architecture faster than another? Interleaved measurements, each in a fresh process."""

from collections.abc import Callable
from statistics import median

from rich.console import Console

from operators import Architecture
from profiler.comparison import Comparison, compare_times
from profiler.device import open_device
from profiler.profile import REPEATABILITY, ProfileSettings
from search.profiling import started
from search.tables import MARK, taint_notes

ROUNDS = 6
AT_ONCE = 6  # processes that start at the same time, before any of them measures
DEADLINE_S = 600.0


def compare(
    a: Architecture,
    b: Architecture,
    settings: ProfileSettings,
    *,
    device: str,
    backend: str = "auto",
    rounds: int = ROUNDS,
    on_round: Callable[[int, float, float], None] = lambda number, a_ms, b_ms: None,
) -> Comparison:
    """Times a decode step of both at the first batch size and context of `settings`, `rounds` times, each time in processes of their own.

    The two take turns in going first. on_round: (number of the round, ms of A, ms of B). Raises what `ProfilingWorker.profile` raises.
    """
    kind = open_device(device).torch_device.type
    sides = [side for number in range(rounds) for side in ((0, 1) if number % 2 == 0 else (1, 0))]
    times: tuple[list[float], list[float]] = ([], [])
    tainted: dict[str, tuple[str, ...]] = {}
    for first in range(0, len(sides), AT_ONCE):
        chunk = sides[first : first + AT_ONCE]
        with started(device, len(chunk)) as workers:
            for side, worker in zip(chunk, workers, strict=True):
                profile = worker.profile((a, b)[side], settings, backend=backend, deadline_s=DEADLINE_S)
                worker.close()
                times[side].append(profile.points[0].decode.median_ms)
                if reasons := profile.conditions.tainted:
                    tainted[f"round {len(times[side])} {'AB'[side]}"] = reasons
                if len(times[0]) == len(times[1]):
                    on_round(len(times[0]), times[0][-1], times[1][-1])
    return compare_times(*times, indistinct=REPEATABILITY[kind]).model_copy(update={"tainted": tainted})


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
    console.print(f"{what} {verdict}{MARK if found.tainted else ''}", soft_wrap=True, markup=False)
    for note in taint_notes(found.tainted):
        console.print(note, soft_wrap=True, markup=False)
