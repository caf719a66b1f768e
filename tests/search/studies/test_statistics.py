"""Rank correlations against their definitions and published values."""

from itertools import combinations

import numpy as np
import pytest

from operators.base.errors import ConfigError
from search.studies import statistics
from search.studies.statistics import correlations, spearman

# Ten people's IQ and weekly hours of television, a textbook's example: ρ = −29/165.
IQ = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
HOURS = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]


def counted_ranks(values: list[float]) -> list[float]:
    """1 + how many are smaller + half of how many others are equal."""
    return [1 + sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values]


def test_spearman_of_a_published_example() -> None:
    assert spearman(IQ, HOURS) == pytest.approx(-29 / 165)


def test_spearman_is_pearsons_correlation_of_counted_ranks_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(5, size=(2, 9)).astype(float)
        expected = np.corrcoef(counted_ranks(list(a)), counted_ranks(list(b)))[0, 1]
        assert spearman(a, b) == pytest.approx(expected)


def test_kendall_counts_pairs() -> None:
    order = [(IQ[i] - IQ[j]) * (HOURS[i] - HOURS[j]) for i, j in combinations(range(10), 2)]
    expected = (sum(one > 0 for one in order) - sum(one < 0 for one in order)) / 45
    assert correlations(IQ, HOURS)["kendall"].value == pytest.approx(expected)


def test_any_increasing_function_is_a_perfect_order_and_its_negative_the_opposite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "_DRAWS", 200)  # which are all the same
    values = [0.1, 5.0, 2.0, 9.0, 3.0]
    for sign in (1, -1):
        found = correlations(values, [sign * np.exp(value) for value in values])
        assert [(one.value, one.low, one.high) for one in found.values()] == [(pytest.approx(sign),) * 3] * 2


def test_intervals_hold_the_value_and_are_narrower_for_more_things() -> None:
    def width(count: int) -> float:
        rng = np.random.default_rng(1)
        a = rng.standard_normal(count)
        found = correlations(list(a), list(a + 0.5 * rng.standard_normal(count)))["spearman"]
        assert found.low <= found.value <= found.high
        return found.high - found.low

    assert width(200) < 0.5 * width(16)


def test_equal_figures_order_nothing() -> None:
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))


@pytest.mark.parametrize("a", [[1, 2, 3], [1, 2, 3, float("nan")]])
def test_too_few_things_or_figures_that_are_not_finite_are_refused(a: list[float]) -> None:
    with pytest.raises(ConfigError, match="expected finite figures of at least 4 things"):
        correlations(a, a)
