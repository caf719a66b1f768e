"""Comparisons of times: the interval against tables and by simulation, and what a verdict takes."""

from statistics import NormalDist

import numpy as np
import pytest

from profiler.measuring.comparison import bootstrap_interval, compare_times, expanded_tail

# From printed tables of Student's t.
QUANTILES = [
    (0.975, 1, 12.7062),
    (0.975, 2, 4.3027),
    (0.99, 5, 3.3649),
    (0.975, 10, 2.2281),
    (0.995, 3, 5.8409),
    (0.95, 30, 1.6973),
]


@pytest.mark.parametrize(("probability", "freedom", "value"), QUANTILES)
def test_the_interval_is_as_much_wider_as_students_t_is(
    probability: float, freedom: int, value: float
) -> None:
    tail = expanded_tail(freedom + 1, 2 * probability - 1)
    widened = ((freedom + 1) / freedom) ** 0.5 * value  # standard deviations of the bootstrap's means
    assert -NormalDist().inv_cdf(tail) == pytest.approx(widened, abs=1e-3)


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.normal(3.0, 1.0, 8), confidence=0.9, rng=rng)
        held += low <= 3.0 <= high
    assert 0.84 <= held / 300 <= 0.95


def test_the_interval_is_the_same_for_the_same_seed() -> None:
    # From the first release that compared times: figures of earlier comparisons can be repeated.
    found = bootstrap_interval(
        np.array([0.1, 0.3, 0.2, 0.6, 0.4]), confidence=0.9, rng=np.random.default_rng(0)
    )
    assert found == pytest.approx((0.15999999999999998, 0.5199999999999999), abs=1e-9)


def verdicts(ratio: float, noise: float, *, indistinct: float = 0.005) -> list[str]:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(100):
        drift = np.exp(rng.normal(0, 0.05, 6))  # of the device, from round to round: it hits both sides
        a, b = (value * drift * np.exp(rng.normal(0, noise, 6)) for value in (1.0, ratio))
        found.append(compare_times(a.tolist(), b.tolist(), indistinct=indistinct).verdict)
    return found


def test_equals_are_not_told_apart() -> None:
    assert verdicts(1.0, 0.003).count("cannot tell") == 100
    assert verdicts(1.0, 0.02, indistinct=0.0).count("cannot tell") >= 95
    assert verdicts(1.004, 0.0001).count("cannot tell") == 100  # beyond the noise, yet too little to matter


def test_two_percent_are_found_either_way() -> None:
    assert verdicts(1.02, 0.003).count("slower") >= 95
    assert verdicts(1 / 1.02, 0.003).count("faster") >= 95


def test_the_ratio_is_of_b_to_a() -> None:
    found = compare_times([2.0, 4.0, 8.0], [1.0, 2.0, 4.0], indistinct=0.01)
    assert (found.ratio, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.verdict == "faster"


@pytest.mark.parametrize("times", [([1.0, 1.0], [1.0, 1.0]), ([1.0] * 3, [1.0] * 4), ([], [])])
def test_too_few_or_unpaired_rounds_are_refused(times: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="at least 3 rounds"):
        compare_times(*times, indistinct=0.0)
