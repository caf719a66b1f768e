"""Is one thing faster than another? A ratio of times from fresh processes, an interval, and a verdict."""

from collections.abc import Sequence
from math import exp, sqrt
from typing import Literal

import numpy as np

from operators.base.value import Value

CONFIDENCE = 0.98
RESAMPLES = 20_000

Verdict = Literal["faster", "slower", "cannot tell"]


class Comparison(Value):
    """How long B takes compared with A, from rounds that timed each in a fresh process, one after the other.

    ratio: geometric mean of the rounds' B / A
    low, high: bootstrap interval of the ratio at `confidence`
    confidence: probability that the interval contains the ratio
    indistinct: relative difference below which the verdict is `cannot tell`, whatever the interval is
    verdict: on B; `faster` or `slower` only where the whole interval lies beyond `indistinct`
    a_ms, b_ms: what each round measured (ms)
    """

    ratio: float
    low: float
    high: float
    confidence: float
    indistinct: float
    verdict: Verdict
    a_ms: tuple[float, ...]
    b_ms: tuple[float, ...]


def compare_times(
    a_ms: Sequence[float], b_ms: Sequence[float], *, indistinct: float, seed: int = 0
) -> Comparison:
    """Compares B with A by the medians of at least three rounds.

    a_ms, b_ms: the medians of A and of B, one a round, in the same order (ms)
    indistinct: relative difference below which the verdict is `cannot tell`
    seed: of the bootstrap

    Raises ValueError for fewer than 3 rounds, or different numbers of them.
    """
    if len(a_ms) != len(b_ms) or len(a_ms) < 3:
        raise ValueError(f"expected two times of each of at least 3 rounds, got {len(a_ms)} and {len(b_ms)}")
    logs = np.log(np.asarray(b_ms, float)) - np.log(np.asarray(a_ms, float))
    low, high = (
        exp(edge) for edge in bootstrap_interval(logs, confidence=CONFIDENCE, rng=np.random.default_rng(seed))
    )
    verdict: Verdict = "cannot tell"
    if high < 1 / (1 + indistinct):
        verdict = "faster"
    elif low > 1 + indistinct:
        verdict = "slower"
    return Comparison(
        ratio=exp(float(logs.mean())),
        low=low,
        high=high,
        confidence=CONFIDENCE,
        indistinct=indistinct,
        verdict=verdict,
        a_ms=tuple(a_ms),
        b_ms=tuple(b_ms),
    )


def bootstrap_interval(
    values: np.ndarray, *, confidence: float, rng: np.random.Generator
) -> tuple[float, float]:
    """The interval of the mean of `values` [n], by the expanded percentile bootstrap."""
    from scipy import stats  # takes a second to import

    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - 2 * expanded_tail(len(values), confidence),
        method="percentile",
        rng=rng,
    )
    low, high = found.confidence_interval
    return float(low), float(high)


def expanded_tail(count: int, confidence: float) -> float:
    """The probability that the expanded percentile interval of `count` values leaves out on each side.

    With few values the plain percentile interval is too narrow. Its level is widened so that for normal
    values the interval is that of Student's t (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap", The American Statistician 69:371-386, section 5).
    """
    from scipy import stats  # takes a second to import

    quantile = stats.t.ppf((1 + confidence) / 2, count - 1)
    return float(stats.norm.cdf(-sqrt(count / (count - 1)) * quantile))
