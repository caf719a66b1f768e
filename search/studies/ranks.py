"""How well one figure orders things as another does: rank correlations, with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.errors import ConfigError
from profiler.table_validate import kendall_tau

Floats = NDArray[np.float64]

LEVEL = 0.95
_DRAWS = 2000
_LEAST = 4


@dataclass(frozen=True)
class Correlation:
    """A rank correlation; low and high: percentiles of it over draws of the things again, with replacement, that hold LEVEL of them."""

    value: float
    low: float
    high: float


def midranks(values: Sequence[float] | Floats) -> Floats:
    """Ranks from 1; equal values share the mean of the ranks that they take up: [n]."""
    _, index, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[index])


def spearman(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float:
    """Spearman's ρ (1904): Pearson's correlation of the midranks; NaN where all of one side are equal."""
    first, second = (ranks - ranks.mean() for ranks in (midranks(a), midranks(b)))
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size else float("nan")


def correlations(a: Sequence[float], b: Sequence[float]) -> dict[str, Correlation]:
    """`spearman` and `kendall` between two figures of the same things. Raises ConfigError for fewer than 4 and for what is not finite."""
    first, second = np.asarray(a, float), np.asarray(b, float)
    if len(first) < _LEAST or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ConfigError(
            f"rank correlation: expected finite figures of at least {_LEAST} things, got {len(first)}"
        )
    # The same figures have the same interval.
    draws = np.random.default_rng(0).integers(len(first), size=(_DRAWS, len(first)))
    return {
        name: _with_interval(measure, first, second, draws)
        for name, measure in (("spearman", spearman), ("kendall", kendall_tau))
    }


def _with_interval(
    measure: Callable[[Floats, Floats], float], a: Floats, b: Floats, draws: NDArray[np.int64]
) -> Correlation:
    values = [measure(a[draw], b[draw]) for draw in draws]
    kept = [value for value in values if not np.isnan(value)] or [float("nan")]
    low, high = np.quantile(kept, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Correlation(measure(a, b), float(low), float(high))
