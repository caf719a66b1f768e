"""Is one thing faster than another? A ratio of times from fresh processes, with an interval, and a verdict."""

from collections.abc import Mapping, Sequence
from math import cos, exp, pi, sin, sqrt, tan
from statistics import NormalDist
from typing import Literal

import numpy as np

from operators.value import Value

CONFIDENCE = 0.98
RESAMPLES = 20_000

Verdict = Literal["faster", "slower", "cannot tell"]


class Comparison(Value):
    """How long B takes beside A, from rounds that timed both in fresh processes, one after the other.

    ratio: geometric mean of the rounds' B / A; low, high: its bootstrap interval at `confidence`. indistinct: the relative difference
    below which two are not told apart whatever the interval says. verdict: of B; `faster` or `slower` only where the whole interval lies
    beyond `indistinct`. a_ms, b_ms: what each round measured.
    tainted: by round and side, as in `round 2 B`, why its time is not to be trusted; without those that are.
    """

    ratio: float
    low: float
    high: float
    confidence: float
    indistinct: float
    verdict: Verdict
    a_ms: tuple[float, ...]
    b_ms: tuple[float, ...]
    tainted: Mapping[str, tuple[str, ...]] = {}


def compare_times(
    a_ms: Sequence[float], b_ms: Sequence[float], *, indistinct: float, seed: int = 0
) -> Comparison:
    """a_ms[i] and b_ms[i] are the medians of round i. Needs at least 3 rounds. Raises ValueError."""
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
    """Interval of the mean of `values` [n] by the expanded percentile bootstrap.

    With few values the plain percentile interval is too narrow. Its level is widened so that for normal values it is that of Student's t
    (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", The American Statistician 69:371-386, section 5).
    """
    n = len(values)
    means = values[rng.integers(n, size=(RESAMPLES, n))].mean(1)
    tail = NormalDist().cdf(-sqrt(n / (n - 1)) * student_quantile((1 + confidence) / 2, n - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def student_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t with `freedom` degrees of freedom stays below with `probability`, which is above 0.5."""
    low, high = 0.0, pi / 2  # the angle whose tangent is t / √freedom
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 + _between(middle, freedom)) / 2 < probability else (low, middle)
    return tan(low) * sqrt(freedom)


def _between(angle: float, freedom: int) -> float:
    """Probability that |t| is below √freedom · tan(angle), by Abramowitz & Stegun 26.7.3 and 26.7.4."""
    odd = freedom % 2
    term = total = cos(angle) ** odd if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= cos(angle) ** 2 * (k - 1) / k
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
