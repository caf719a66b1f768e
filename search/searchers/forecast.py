"""Forecasts of the objectives of unseen candidates, with one surrogate for each objective."""

from dataclasses import dataclass

import numpy as np

from search import pareto
from search.pareto import Floats
from search.searchers.surrogate import Kernel, Surrogate, conditioned, first_kernel, fitted, inverse_root

FEWEST = 8
"""Scores below which no fit is made."""
LARGEST = 200
"""Most scores that a fit uses, to bound its time: three quarters the best by front, the rest random."""
MOST_NEW = 200
"""Most scores after which a fit is made anew: forecasts learn from all of them, in time that grows with their
square."""
FEW, STEPS_OF_FEW, STEPS = 64, 60, 30
"""A fit takes STEPS_OF_FEW cheap steps on about FEW of its scores, then STEPS on all."""


@dataclass(frozen=True)
class Warp:
    """Compresses bad values: beyond the median they grow only logarithmically. Better ones stay as they are.

    How bad a bad candidate is does not matter, and outliers would spoil the fit.

    median: median of the values.
    reach: distance from the median to the best value; the scale of the logarithm.
    """

    median: float
    reach: float

    def __call__(self, values: Floats) -> Floats:
        worse = np.maximum(values - self.median, 0)
        return np.asarray(
            np.where(worse > 0, self.median + self.reach * np.log1p(worse / self.reach), values)
        )


@dataclass(frozen=True)
class Standard:
    """Standardizes features. A column that is constant in the rows that it comes of becomes 0.

    means, factors: of each feature [d].
    """

    means: Floats
    factors: Floats

    def __call__(self, rows: Floats) -> Floats:
        return np.asarray((rows - self.means) * self.factors)


def standard_of(rows: Floats) -> Standard:
    """What brings features [n, d] to mean 0 and deviation 1."""
    deviation = rows.std(0)
    return Standard(rows.mean(0), np.where(deviation > 1e-9, 1 / np.maximum(deviation, 1e-9), 0.0))


@dataclass(frozen=True)
class Fit:
    """Kernels learned from scores.

    told: number of scores when they were learned.
    active: rows of the scores that were used.
    standard: of their features.
    warps: one for each objective.
    kernels: one for each objective.
    """

    told: int
    active: tuple[int, ...]
    standard: Standard
    warps: tuple[Warp, ...]
    kernels: tuple[Kernel, ...]


def next_fit(told: int) -> int:
    """The number of scores at which the next fit is due: a tenth more, at most MOST_NEW, and two.

    told: number of scores at the last fit.
    """
    return told + min(told // 10, MOST_NEW) + 2


def used(fit: "Fit", told: int) -> np.ndarray:
    """The rows of the scores that a forecast learns from: those of the fit, and all that came after it.

    told: number of scores now.
    """
    return np.concatenate([np.array(fit.active, int), np.arange(fit.told, told)])


def fit_of(
    active: np.ndarray, rows: Floats, scores: Floats, known: Floats, times: Floats, *, told: int
) -> Fit:
    """A new fit. It depends on no earlier fit, so that a resumed run makes the same one.

    active: the scores that it uses, from `fit_uses` of all scores [n].
    rows: features of these [n, d].
    scores: their measured scores [n, m].
    known: parts of the objectives that are known beforehand [n, m], see `Forecast`.
    times: number of evaluations whose mean each score is [n].
    told: number of all scores.
    """
    warps, standard = tuple(_warp_of(column) for column in scores.T), standard_of(rows)
    x, some, kernels = standard(rows), slice(None, None, -(-len(active) // FEW)), []
    for number, warp in enumerate(warps):
        values = _rest(warp, scores[:, number], known[:, number])
        y = (values - values.mean()) / _scale(values)
        kernel = fitted(first_kernel(x.shape[1]), x[some], y[some], steps=STEPS_OF_FEW, times=times[some])
        kernels.append(fitted(kernel, x, y, steps=STEPS, times=times))
    return Fit(told, tuple(active.tolist()), standard, warps, tuple(kernels))


@dataclass(frozen=True)
class Forecast:
    """Predicts objectives in warped units, which leave dominance unchanged.

    Where values of an objective are known beforehand, as from a latency table, only the difference to them is
    learned. Known values are NaN for other objectives.

    fit: the fit whose kernels are conditioned.
    times: number of evaluations of each score that it learned from [n].
    surrogates: one for each objective.
    centers, scales: mean and deviation of each objective's learned values [m].
    skill: the share of the variance that predictions explain, for the objective that is predicted best. The
        share that known values explain counts too.
    """

    fit: Fit
    times: Floats
    surrogates: tuple[Surrogate, ...]
    centers: Floats
    scales: Floats
    skill: float

    def warped(self, scores: Floats) -> Floats:
        return np.column_stack([warp(column) for warp, column in zip(self.fit.warps, scores.T, strict=True)])

    def predict(self, rows: Floats, known: Floats) -> tuple[Floats, Floats]:
        """Means and deviations of the objectives [k, m].

        rows: features [k, d].
        known: values known beforehand [k, m].
        """
        x = self.fit.standard(rows)
        predictions = [surrogate.predict(x) for surrogate in self.surrogates]
        means = np.column_stack([mean for mean, _ in predictions]) * self.scales + self.centers
        means += np.column_stack(
            [_base(warp, column) for warp, column in zip(self.fit.warps, known.T, strict=True)]
        )
        return means, np.column_stack([deviation for _, deviation in predictions]) * self.scales


def forecast(
    fit: Fit, rows: Floats, scores: Floats, known: Floats, times: Floats, *, before: Forecast | None = None
) -> Forecast:
    """Conditions a fit's kernels on scores.

    rows, scores, known, times: as for `fit_of`, of the scores that are `used`.
    before: an earlier forecast of the same fit. It saves time and changes nothing.
    """
    first, x = len(fit.active), fit.standard(rows)
    if before is not None and np.array_equal(before.times, times[: len(before.times)]):
        roots = [surrogate.root for surrogate in before.surrogates]
    else:
        roots = [inverse_root(kernel, x[:first], times[:first]) for kernel in fit.kernels]
    surrogates, centers, scales, skills = list[Surrogate](), [], [], []
    for number, (warp, kernel, root) in enumerate(zip(fit.warps, fit.kernels, roots, strict=True)):
        values = _rest(warp, scores[:, number], known[:, number])
        centers.append(values.mean())
        scales.append(_scale(values))
        y = (values - values.mean()) / _scale(values)
        surrogates.append(conditioned(kernel, x, y, times, root=root))
        varied = float(warp(scores[:, number]).var())
        unknown = float(values.var()) / max(varied, 1e-12)
        # An objective that never varies is easy to predict, which is no skill.
        skills.append(1 - (1 - surrogates[-1].skill) * unknown if varied > 0 else 0.0)
    return Forecast(fit, times, tuple(surrogates), np.array(centers), np.array(scales), max(skills))


def fit_uses(scores: Floats) -> np.ndarray:
    """The rows of the scores that a fit uses, at most LARGEST."""
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
    """The part of warped values that is not known beforehand."""
    return np.asarray(warp(values) - _base(warp, known))


def _base(warp: Warp, known: Floats) -> Floats:
    return np.where(np.isnan(known), 0.0, warp(known))


def _scale(values: Floats) -> float:
    return float(values.std()) or 1.0
