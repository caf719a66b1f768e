"""Picks depth and width for a latency budget: the lowest loss that the law predicts within it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import ArrayLike

from operators.base.errors import ArchitectureError, ConfigError, TableError
from operators.cost import parameters
from profiler.table.latency_table import LatencyTable
from profiler.table.parts import Point
from search.studies.law.fit import Fitted, Floats, nonnegative
from search.studies.law.law import LawSettings

Shape = tuple[int, int]
LatencyOf = Callable[[int, int], float | None]


@dataclass(frozen=True)
class LatencyLaw:
    """The time of a decode step: t0 + D·(u + v·W + w·W²) ms, for D blocks of width W.

    t0 is the fixed time of a step. The rest is the time of a block, whose matrices grow with the square of
    the width.
    """

    t0: float
    u: float
    v: float
    w: float

    def ms(self, depth: ArrayLike, width: ArrayLike) -> Floats:
        d, w = np.asarray(depth, float), np.asarray(width, float)
        return np.asarray(self.t0 + d * (self.u + self.v * w + self.w * w**2))


@dataclass(frozen=True)
class Choice:
    """One shape that keeps the budget.

    ms: time of a decode step.
    measured: whether `ms` was measured; else it comes from a law.
    loss: predicted.
    low, high: the interval of the predicted loss.
    tainted: why a measured `ms` is not to be trusted.
    """

    depth: int
    width: int
    params: int
    ms: float
    measured: bool
    loss: float
    low: float
    high: float
    tainted: tuple[str, ...] = ()


def latency_law(measured: Mapping[Shape, float]) -> LatencyLaw:
    """Fits the latency law to measured times (ms) by relative least squares.

    Raises ConfigError where the times are too few.
    """
    depths, widths = ({shape[side] for shape in measured} for side in (0, 1))
    if len(measured) < 4 or len(depths) < 2 or len(widths) < 2:
        raise ConfigError(
            f"latency: expected at least 4 measured points of 2 depths and 2 widths, got {len(measured)}"
        )
    d, w = np.array(list(measured), float).T
    ms = np.array(list(measured.values()))
    columns = np.stack([np.ones_like(d), d, d * w, d * w**2], -1)
    t0, u, v, square = nonnegative(columns[None], ms, ms**-2)[0][0]
    return LatencyLaw(float(t0), float(u), float(v), float(square))


def from_measurements(measured: Mapping[Shape, float]) -> LatencyOf:
    """Returns the latency of a shape: the measured time where there is one, else the latency law's."""
    law = latency_law(measured)
    return lambda depth, width: measured.get((depth, width), float(law.ms(depth, width)))


def from_table(table: LatencyTable, settings: LawSettings, point: Point) -> LatencyOf:
    """Returns the latency of a shape by the table; None for a width that the table lacks entries of.

    Raises TableError where it lacks them for every width.
    """
    lacking: list[TableError] = []

    def ms(depth: int, width: int) -> float | None:
        try:
            return table.latency(
                settings.architecture(depth, width, vocabulary=settings.data.vocabulary), point
            ).ms
        except TableError as error:
            lacking.append(error)
            return None

    if all(ms(settings.depths[0], width) is None for width in settings.widths):
        raise lacking[0]
    return ms


def candidates(settings: LawSettings) -> list[Shape]:
    """Returns every depth between those of the grid, with widths between the grid's widths.

    The widths go in steps of their greatest common divisor.
    """
    step = gcd(*settings.widths)
    widths = range(min(settings.widths), max(settings.widths) + 1, step)
    return [
        (depth, width) for depth in range(min(settings.depths), max(settings.depths) + 1) for width in widths
    ]


def pick(
    settings: LawSettings,
    fitted: Fitted,
    latency: LatencyOf,
    measured: Mapping[Shape, float],
    *,
    budget_ms: float,
    tokens: int,
    tainted: Mapping[Shape, tuple[str, ...]] | None = None,
) -> list[Choice]:
    """Returns the shapes within the budget, the lowest predicted loss first.

    measured: by shape, its measured time (ms).
    budget_ms: of a decode step.
    tokens: of the training at which the loss is predicted.
    tainted: by shape, why its measured time is not to be trusted.

    Raises ConfigError where no shape is within the budget.
    """
    times = {shape: ms for shape in candidates(settings) if (ms := latency(*shape)) is not None}
    within = [shape for shape, ms in times.items() if ms <= budget_ms and _exists(settings, shape)]
    if not within:
        fastest = min(times, key=lambda shape: times[shape])
        least = f"depth {fastest[0]} and width {fastest[1]}, takes {times[fastest]:.4g} ms"
        raise ConfigError(f"--latency-ms {budget_ms:g}: no shape is as fast: the fastest, {least}")
    depth, width = np.array(within, float).T
    loss, (low, high) = fitted.law.loss(depth, width, tokens), fitted.interval(depth, width, tokens)
    choices = [
        Choice(
            depth=shape[0],
            width=shape[1],
            params=parameters(settings.architecture(*shape, vocabulary=settings.data.vocabulary)),
            ms=times[shape],
            measured=shape in measured,
            loss=float(loss[number]),
            low=float(low[number]),
            high=float(high[number]),
            tainted=(tainted or {}).get(shape, ()) if shape in measured else (),
        )
        for number, shape in enumerate(within)
    ]
    return sorted(choices, key=lambda choice: (choice.loss, choice.ms))


def _exists(settings: LawSettings, shape: Shape) -> bool:
    try:
        settings.architecture(*shape, vocabulary=settings.data.vocabulary)
    except ArchitectureError:
        return False
    return True
