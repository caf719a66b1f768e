"""Another size of a design that takes as long as a given model, found by measuring a few sizes.

The design keeps its proportion of width to depth as far as that gets near enough. Times on small models go in
steps of whole layers, so the width is changed at one depth at the end.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from itertools import cycle, islice

from operators import Architecture
from operators.architecture import MAX_DEPTH
from search.evaluation.fidelity import WIDTH_STEP
from search.spaces.seeds import RESCALED

# A time as near as this to the wanted one ends the search: measurements are hardly more exact (a share).
CLOSE = 0.02
# Measurements, at most: of sizes in proportion, and then at one depth.
_TRIES = (7, 5)
_LARGEST = 4096  # in steps of WIDTH_STEP: the largest width of an architecture
_GROWTH = 2.0  # from one try to a larger one, so that none takes much longer than what is wanted

Time = Callable[[Architecture], float]


def sized(design: Architecture, width: int, depth: int) -> Architecture:
    """The design at another width and depth: its first layers, or all and then the first ones again.

    So operators keep their order. To leave out every other block, as mutations do, might leave out all blocks
    of one operator. Heads keep their size.
    """
    layers = tuple(islice(cycle(design.layers), depth))
    deeper = design.model_copy(update={"layers": layers})
    return deeper.resized(width).model_copy(update={"name": f"{design.name}{RESCALED}"})


def in_proportion(design: Architecture, width: int) -> Architecture:
    """The design at another width, and the depth that keeps the proportion of both."""
    depth = round(width * design.depth / design.width)
    return sized(design, width, min(max(depth, min(2, design.depth)), MAX_DEPTH))


def as_large(design: Architecture, size: int, size_of: Callable[[Architecture], int]) -> int:
    """The width at which the design in proportion is as large as `size`, by `size_of`."""

    def size_at(step: int) -> int:
        return size_of(in_proportion(design, step * WIDTH_STEP))

    most = 1
    while most < _LARGEST and size_at(most) < size:  # large sizes are slow to make
        most *= 2
    steps = range(most // 2 + 1, most + 1)
    return WIDTH_STEP * min(steps.start + bisect_left(steps, size, key=size_at), most)


def rescaled(design: Architecture, wanted: float, time_of: Time, *, first: int) -> tuple[Architecture, float]:
    """The size of the design, among those that are tried, whose time is nearest to the wanted one; its time.

    wanted: a time, in the unit of `time_of`.
    time_of: measures a size; infinity where it cannot be measured.
    first: the width to try first.
    """
    tried: dict[Architecture, float] = {}

    def time(member: Architecture) -> float:
        if member not in tried:
            tried[member] = time_of(member)
        return tried[member]

    def off(member: Architecture) -> float:
        return abs(math.log(tried[member] / wanted))

    _approach(lambda width: time(in_proportion(design, width)), wanted, first, _TRIES[0])
    nearest = min(tried, key=off)
    if off(nearest) > CLOSE:
        below = [member for member in tried if tried[member] < wanted]
        begin = max(below, key=lambda member: tried[member], default=nearest)
        _approach(lambda width: time(sized(design, width, begin.depth)), wanted, begin.width, _TRIES[1])
    nearest = min(tried, key=off)
    return nearest, tried[nearest]


def _approach(time_at: Callable[[int], float], wanted: float, width: int, tries: int) -> None:
    """Tries widths until one's time is close, or neighbours lie on both sides of it (regula falsi)."""
    low: tuple[int, float] | None = None
    high: tuple[int, float] | None = None
    for _ in range(tries):
        time = time_at(width)
        if abs(time / wanted - 1) <= CLOSE:
            return
        if time < wanted:
            low = width, time
        else:
            high = width, time
        following = _next(low, high, wanted)
        if following is None:
            return
        width = following


def _next(low: tuple[int, float] | None, high: tuple[int, float] | None, wanted: float) -> int | None:
    """The next width to try; None where there is none left."""
    if low is not None and high is not None:
        if high[0] - low[0] <= WIDTH_STEP:
            return None
        share = (wanted - low[1]) / (high[1] - low[1]) if math.isfinite(high[1]) else 0.5
        between = _stepped(low[0] + share * (high[0] - low[0]))
        return min(max(between, low[0] + WIDTH_STEP), high[0] - WIDTH_STEP)
    if low is not None:
        larger = min(_stepped(low[0] * min(wanted / low[1], _GROWTH)), WIDTH_STEP * _LARGEST)
        return max(larger, low[0] + WIDTH_STEP) if low[0] < WIDTH_STEP * _LARGEST else None
    if high is not None and high[0] > WIDTH_STEP:
        smaller = _stepped(high[0] * max(wanted / high[1], 1 / _GROWTH))
        return min(smaller, high[0] - WIDTH_STEP)
    return None


def _stepped(width: float) -> int:
    return WIDTH_STEP * max(1, round(width / WIDTH_STEP))
