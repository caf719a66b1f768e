"""What all objectives of unseen candidates will be, from what was told: a surrogate for each, learned anew at growing intervals."""

from dataclasses import dataclass

import numpy as np

from search import pareto
from search.pareto import Floats
from search.searchers.surrogate import Kernel, Surrogate, conditioned, first_kernel, fitted

FEWEST = 8
"""Scores before which nothing is learned."""
LARGEST = 200
"""Scores that a fit looks at: the best by front and, a quarter of them, any others, so that its time does not grow without bound."""
FEW, STEPS_OF_FEW, STEPS = 64, 60, 30
"""A fit first takes cheap steps on some of its scores, then a few on all."""


@dataclass(frozen=True)
class Warp:
    """Keeps what is better than the median as it is and draws the worse in logarithmically: how bad bad ones are does not matter."""

    median: float
    reach: float

    def __call__(self, values: Floats) -> Floats:
        worse = np.maximum(values - self.median, 0)
        return np.asarray(
            np.where(worse > 0, self.median + self.reach * np.log1p(worse / self.reach), values)
        )


@dataclass(frozen=True)
class Fit:
    """Kernels learned from the first `told` scores, the rows of `active` among them."""

    told: int
    active: tuple[int, ...]
    warps: tuple[Warp, ...]
    kernels: tuple[Kernel, ...]


def next_fit(told: int) -> int:
    """With how many scores to fit again after a fit to so many: a tenth more, and two."""
    return told + told // 10 + 2


def fit_anew(rows: Floats, scores: Floats, known: Floats, times: Floats) -> Fit:
    """A fit to features [n, d] and scores [n, m], to nothing else: earlier fits need not be known.

    known [n, m]: see `Forecast`. times [n]: of how many evaluations the scores are means.
    """
    active = _active(scores)
    warps = tuple(_warp_of(column) for column in scores[active].T)
    x = _standardized(rows[active], rows[active])
    some = slice(None, None, -(-len(active) // FEW))
    kernels = []
    for number, warp in enumerate(warps):
        values = _rest(warp, scores[active, number], known[active, number])
        y = (values - values.mean()) / _scale(values)
        kernel = fitted(
            first_kernel(x.shape[1]), x[some], y[some], steps=STEPS_OF_FEW, times=times[active][some]
        )
        kernels.append(fitted(kernel, x, y, steps=STEPS, times=times[active]))
    return Fit(len(scores), tuple(active.tolist()), warps, tuple(kernels))


@dataclass(frozen=True)
class Forecast:
    """Predictions in warped units, in which dominance is as it was. rows: features [n, d] of those it learned from.

    skill: of the objective that is predicted best, the share of the variance that is explained, by what is known too.

    Of an objective whose values are known from elsewhere, such as a table, only the difference to them is learned; known is NaN
    for the others.
    """

    warps: tuple[Warp, ...]
    surrogates: tuple[Surrogate, ...]
    centers: Floats
    scales: Floats
    rows: Floats
    skill: float

    def warped(self, scores: Floats) -> Floats:
        return np.column_stack([warp(column) for warp, column in zip(self.warps, scores.T, strict=True)])

    def predict(self, rows: Floats, known: Floats) -> tuple[Floats, Floats]:
        """Means and deviations of features [k, d]: [k, m] each."""
        x = _standardized(rows, self.rows)
        found = [surrogate.predict(x) for surrogate in self.surrogates]
        means = np.column_stack([mean for mean, _ in found]) * self.scales + self.centers
        means += np.column_stack(
            [_base(warp, column) for warp, column in zip(self.warps, known.T, strict=True)]
        )
        return means, np.column_stack([deviation for _, deviation in found]) * self.scales


def forecast(fit: Fit, rows: Floats, scores: Floats, known: Floats, times: Floats) -> Forecast:
    """The fit's kernels with all that was told since: features [n, d], scores [n, m] in the order that it was fitted in."""
    used = [*fit.active, *range(fit.told, len(scores))]
    x, surrogates, centers, scales, skills = _standardized(rows[used], rows[used]), [], [], [], []
    for number, (warp, kernel) in enumerate(zip(fit.warps, fit.kernels, strict=True)):
        values = _rest(warp, scores[used, number], known[used, number])
        centers.append(values.mean())
        scales.append(_scale(values))
        surrogates.append(conditioned(kernel, x, (values - values.mean()) / _scale(values), times[used]))
        varied = float(warp(scores[used, number]).var())
        unknown = float(values.var()) / max(varied, 1e-12)
        skills.append(
            1 - (1 - surrogates[-1].skill) * unknown if varied > 0 else 0.0
        )  # to foresee a constant is none
    return Forecast(
        fit.warps, tuple(surrogates), np.array(centers), np.array(scales), rows[used], max(skills)
    )


def _active(scores: Floats) -> np.ndarray:
    if len(scores) <= LARGEST:
        return np.arange(len(scores))
    order, best = np.argsort(pareto.ranks(scores), kind="stable"), LARGEST * 3 // 4
    others = np.random.default_rng(len(scores)).permutation(order[best:])[: LARGEST - best]
    return np.sort(np.concatenate([order[:best], others]))


def _warp_of(values: Floats) -> Warp:
    median = float(np.median(values))
    reach = median - float(values.min())
    return Warp(median, reach if reach > 0 else _scale(values))


def _rest(warp: Warp, values: Floats, known: Floats) -> Floats:
    return np.asarray(warp(values) - _base(warp, known))


def _base(warp: Warp, known: Floats) -> Floats:
    return np.where(np.isnan(known), 0.0, warp(known))


def _scale(values: Floats) -> float:
    return float(values.std()) or 1.0


def _standardized(rows: Floats, by: Floats) -> Floats:
    """Columns that are all equal become 0."""
    deviation = by.std(0)
    return np.asarray((rows - by.mean(0)) * np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0.0))
