"""Differences of losses over seeds: intervals are Student's, and hold the truth as often as they say."""

import numpy as np
import pytest
from scipy import stats

from search.studies.differences import Difference, paired

RIVAL, OWN = (3.31, 3.28, 3.35, 3.30), (3.21, 3.27, 3.22, 3.24)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_interval_is_that_of_scipy_s_paired_test(count: int) -> None:
    found, expected = paired(RIVAL[:count], OWN[:count]), stats.ttest_rel(RIVAL[:count], OWN[:count])
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean / found.error == pytest.approx(expected.statistic)
    assert (found.verdict == "better") == (expected.pvalue < 0.05)
    assert found.seeds == count


def test_the_interval_holds_the_truth_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.normal(3, 0.5, (4000, 3))  # what a seed does to both models cancels out
    own, rival = seeds + rng.normal(0, 0.05, (4000, 3)), seeds + 0.1 + rng.normal(0, 0.08, (4000, 3))
    held = [paired(*pair) for pair in zip(rival.tolist(), own.tolist(), strict=True)]
    share = np.mean([found.low <= 0.1 <= found.high for found in held])
    assert share == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / 4000) ** 0.5)


@pytest.mark.parametrize(
    ("rival", "own", "verdict"),
    [
        ((3.2, 3.3, 3.4), (3.1, 3.2, 3.3), "better"),
        ((3.1, 3.2, 3.3), (3.2, 3.3, 3.4), "worse"),
        ((3.2, 3.2, 3.2), (3.1, 3.2, 3.3), "cannot tell"),
        ((3.0, 3.0), (3.0, 3.0), "cannot tell"),
    ],
)
def test_the_verdict_is_on_which_side_of_nothing_the_interval_lies(
    rival: tuple[float, ...], own: tuple[float, ...], verdict: str
) -> None:
    assert paired(rival, own).verdict == verdict


def test_one_seed_has_no_interval() -> None:
    assert paired([3.5], [3.0]) == Difference(0.5, None, None, None, 1)
    assert paired([3.5], [3.0]).verdict == "cannot tell"


def test_losses_of_other_seeds_make_no_pairs() -> None:
    for rival, own in (([3.0], [3.0, 3.1]), ([], [])):
        with pytest.raises(ValueError, match=r"shorter|longer|expected at least one pair"):
            paired(rival, own)
