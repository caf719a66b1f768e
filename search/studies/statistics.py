"""Rank correlations with intervals: how well one figure orders things as another does."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.base.errors import ConfigError

Floats = NDArray[np.float64]

# The share of the draws that an interval holds.
LEVEL = 0.95
# Draws with replacement for each interval.
_DRAWS = 2000
# Three things have only six orders, and any interval holds all of them.
_LEAST = 4


@dataclass(frozen=True)
class Correlation:
    """A rank correlation, and the interval that holds LEVEL of its values over draws with replacement."""

    value: float
    low: float
    high: float


def spearman(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float:
    """Spearman's ρ (1904). Equal values share the mean of their ranks; NaN where one side is constant."""
    return float(_spearman_rows(np.asarray(a, float)[None], np.asarray(b, float)[None])[0])


def correlations(a: Sequence[float], b: Sequence[float]) -> dict[str, Correlation]:
    """Returns `spearman` and `kendall` between two figures of the same things.

    a, b: a figure of each thing [n].

    Raises ConfigError for fewer than 4 things, and for figures that are not finite.
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if len(first) < _LEAST or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ConfigError(
            f"rank correlation: expected finite figures of at least {_LEAST} things, got {len(first)}"
        )
    # A fixed seed gives the same figures the same interval.
    draws = np.random.default_rng(0).integers(len(first), size=(_DRAWS, len(first)))
    rows = np.vstack([np.arange(len(first)), draws])
    return {
        name: _with_interval(measure(first[rows], second[rows]))
        for name, measure in (("spearman", _spearman_rows), ("kendall", _kendall_rows))
    }


def _spearman_rows(a: Floats, b: Floats) -> Floats:
    """Returns Spearman's ρ of each row of a, b [r, n]: [r]."""
    from scipy import stats  # takes a second to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)  # the result is NaN then
        return np.asarray(
            stats.pearsonr(stats.rankdata(a, axis=1), stats.rankdata(b, axis=1), axis=1).statistic
        )


def _kendall_rows(a: Floats, b: Floats) -> Floats:
    """Returns Kendall's τ-b of each row of a, b [r, n]: [r]."""
    from scipy import stats  # takes a second to import

    # The asymptotic formula is the cheapest one for the p-value, which is not used.
    return np.asarray(stats.kendalltau(a, b, method="asymptotic", axis=1).statistic)


def _with_interval(values: Floats) -> Correlation:
    """Returns the correlation with its interval, the quantiles of the draws.

    values: [1 + draws], first of the things themselves, then of each draw. A draw in which all values of one
        side are equal gives NaN and does not count.
    """
    drawn = values[1:]
    kept = drawn[~np.isnan(drawn)]
    low, high = np.quantile(kept if len(kept) else [np.nan], ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Correlation(float(values[0]), float(low), float(high))
