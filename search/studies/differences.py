"""The difference of two trainings' losses over several seeds, with an interval and a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from search.studies.statistics import LEVEL

Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True)
class Difference:
    """By how much the losses of one model are above another's, seed by seed.

    mean: over the seeds (nats per token).
    error: standard error of the mean; None for fewer than two seeds.
    low, high: the interval that holds the true mean with probability LEVEL; None for fewer than two seeds.
    seeds: how many.
    """

    mean: float
    error: float | None
    low: float | None
    high: float | None
    seeds: int

    @property
    def verdict(self) -> Verdict:
        """`better` where the interval is above 0, `worse` where it is below, else `cannot tell`."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "cannot tell"
        return "better" if self.low > 0 else "worse"


def paired(others: Sequence[float], own: Sequence[float]) -> Difference:
    """How far the losses of others are above one's own.

    Both were trained with the same seeds in the same order, so that a pair has seen the same batches. What a
    seed does to both cancels out of the difference. The interval is Student's, of the mean of the
    differences, with one degree of freedom less than there are seeds.

    Raises ValueError where the numbers of losses differ, or there is none.
    """
    differences = [other - mine for other, mine in zip(others, own, strict=True)]
    if not differences:
        raise ValueError("difference: expected at least one pair of losses, got none")
    mean, count = fmean(differences), len(differences)
    if count < 2:
        return Difference(mean, None, None, None, count)
    from scipy.special import stdtrit  # takes a moment to import

    error = stdev(differences) / count**0.5
    reach = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * error
    return Difference(mean, error, mean - reach, mean + reach, count)
