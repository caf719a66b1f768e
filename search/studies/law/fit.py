"""The depth-width law, fitted to measured losses.

The law is L(D, W, N) = L0 + a·D^-α + b·W^-β + c·N^-γ (Nemotron-Flash, arXiv 2511.18890).

For given exponents the law is linear, with coefficients that are not negative: these are solved for exactly,
and only the exponents are searched (variable projection; Golub and Pereyra 1973). Residuals are relative, so
that one law serves losses and perplexities, and weigh less where they are far out (Huber). Intervals are
percentiles over fits to points drawn again with replacement.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from operators.base.errors import ConfigError

Floats = NDArray[np.float64]

# Below, a power can hardly be told from a constant. Above, it has vanished at the second smallest size.
EXPONENTS = (0.05, 4.0)
# The share of the draws that an interval holds.
LEVEL = 0.9
# Fits to points drawn again, for the intervals.
_DRAWS = 200
# With 1.345 the fit is 95 % as efficient as least squares where errors are normal.
_HUBER, _REWEIGHTINGS = 1.345, 4
# Steps of the logarithm of an exponent.
_FIRST_STEP, _NEXT_STEP, _FINEST = 0.4, 0.05, 1e-3


@dataclass(frozen=True)
class Points:
    """Trained models, one a row.

    depth: in blocks [n].
    width: [n].
    tokens: of the training [n].
    loss: or perplexity [n].
    """

    depth: Floats
    width: Floats
    tokens: Floats
    loss: Floats

    def __len__(self) -> int:
        return len(self.loss)

    def take(self, index: ArrayLike) -> "Points":
        chosen = np.asarray(index)
        return Points(self.depth[chosen], self.width[chosen], self.tokens[chosen], self.loss[chosen])

    @property
    def inputs(self) -> tuple[Floats, Floats, Floats]:
        return self.depth, self.width, self.tokens


@dataclass(frozen=True)
class Law:
    """floor + a·D^-alpha + b·W^-beta + c·N^-gamma; c is 0 where all points have one budget.

    Where a coefficient is 0, its exponent, which means nothing then, is 0 too.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    c: float = 0.0
    gamma: float = 0.0

    def loss(self, depth: ArrayLike, width: ArrayLike, tokens: ArrayLike = 1.0) -> Floats:
        """Returns the losses at depths, widths and budgets of one shape, or of shapes that broadcast."""
        d, w, n = (np.asarray(value, float) for value in (depth, width, tokens))
        return np.asarray(
            self.floor + self.a * d**-self.alpha + self.b * w**-self.beta + self.c * n**-self.gamma
        )


@dataclass(frozen=True)
class Fitted:
    """A law of all points, and the laws of the draws.

    draws: laws of points that were drawn again with replacement; the intervals come from them.
    """

    law: Law
    draws: tuple[Law, ...]

    def interval(self, depth: ArrayLike, width: ArrayLike, tokens: ArrayLike = 1.0) -> tuple[Floats, Floats]:
        """Returns the ends of the LEVEL interval of the law's losses; single trainings scatter beyond it."""
        low, high = np.quantile([law.loss(depth, width, tokens) for law in self.draws], _tails(), axis=0)
        return low, high

    def coefficient_interval(self, name: str) -> tuple[float, float]:
        low, high = np.quantile([getattr(law, name) for law in self.draws], _tails())
        return float(low), float(high)


def fit(points: Points, *, draws: int = _DRAWS) -> Fitted:
    """Fits the law to the points, with intervals from `draws` draws.

    Raises ConfigError as `check` does.
    """
    check(points)
    law, exponents = _fit(points, None)
    rng = np.random.default_rng(0)  # a fixed seed gives the same points the same interval
    found: list[Law] = []
    while len(found) < draws:
        again = points.take(rng.integers(len(points), size=len(points)))
        if _shortfall(again) is None:
            found.append(_fit(again, exponents)[0])
    return Fitted(law, tuple(found))


def check(points: Points) -> None:
    """Raises ConfigError where points are too few to tell the terms apart, or not positive and finite."""
    if not all(np.isfinite(values).all() and (values > 0).all() for values in (*points.inputs, points.loss)):
        raise ConfigError("the law: expected finite losses, depths, widths and budgets above 0")
    if shortfall := _shortfall(points):
        raise ConfigError(f"the law: {shortfall}")
    least = 2 * len(_sides(points)) + 2
    if len(points) < least:
        raise ConfigError(
            f"the law: expected at least {least} points to fit {least - 1} numbers, got {len(points)}"
        )


def hold_out(points: Points, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the indices of the points to fit, and of those that the fit has to extrapolate to.

    The latter have the `count` largest shapes by depth × width².

    Raises ConfigError where no point would be left.
    """
    shapes = sorted(
        {(d, w) for d, w in zip(points.depth, points.width, strict=True)},
        key=lambda shape: (shape[0] * shape[1] ** 2, shape),
    )
    if not 0 <= count < len(shapes):
        raise ConfigError(f"--holdout: expected 0 to {len(shapes) - 1} of {len(shapes)} shapes, got {count}")
    held = set(shapes[len(shapes) - count :])
    out = np.array([shape in held for shape in zip(points.depth, points.width, strict=True)], bool)
    return np.flatnonzero(~out), np.flatnonzero(out)


def nonnegative(columns: Floats, values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Solves least squares with coefficients of at least 0, for many problems that differ in their columns.

    columns: [e, n, m].
    values: [n].
    weights: [n].

    Returns coefficients [e, m] and losses [e], both exact.

    It tries every set of coefficients that may be above 0. These are 2^m, so m must be small.
    `scipy.optimize.nnls` solves one problem a call, and a fit with its intervals solves about a million.
    """
    count, _, terms = columns.shape
    scale = np.sqrt((columns**2).mean(1, keepdims=True))
    scaled = columns / scale
    weighted = scaled * weights[:, None]
    gram, moment = weighted.transpose(0, 2, 1) @ scaled, weighted.transpose(0, 2, 1) @ values
    best, loss = np.zeros((count, terms)), np.full(count, float(weights @ values**2))
    for chosen in (list(some) for size in range(1, terms + 1) for some in combinations(range(terms), size)):
        # Keeps the system solvable where columns are multiples of each other.
        ridge = 1e-13 * weights.sum() * np.eye(len(chosen))
        solved = np.linalg.solve(gram[:, chosen][:, :, chosen] + ridge, moment[:, chosen, None])[:, :, 0]
        residual = values - (scaled[:, :, chosen] @ solved[:, :, None])[:, :, 0]
        reached = (weights * residual**2).sum(1)
        better = (solved >= 0).all(1) & (reached < loss)
        best[np.ix_(better, chosen)] = solved[better]
        best[np.ix_(better, [other for other in range(terms) if other not in chosen])] = 0
        loss = np.where(better, reached, loss)
    return best / scale[:, 0], loss


def _tails() -> tuple[float, float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2


def _sides(points: Points) -> list[Floats]:
    """Returns what the law has powers of: depth, width, and tokens where they differ."""
    return [points.depth, points.width, *([points.tokens] if len(set(points.tokens)) > 1 else [])]


def _shortfall(points: Points) -> str | None:
    for name, values in zip(("depths", "widths", "budgets"), points.inputs, strict=True):
        different = len(set(values))
        if different < 3 and not (name == "budgets" and different == 1):
            also = "1 or " if name == "budgets" else ""
            return (
                f"expected {also}at least 3 different {name}, got {different}; "
                "a power cannot be told from a constant by fewer"
            )
    return None


def _fit(points: Points, start: Sequence[float] | None) -> tuple[Law, list[float]]:
    """Returns the law, and the logarithms of its exponents.

    start: logarithms of the exponents to begin with; None looks everywhere.
    """
    weights = points.loss**-2
    logs = _exponents(points, weights, _grid(len(_sides(points)), start), _FIRST_STEP)
    for _ in range(_REWEIGHTINGS):
        law = _law(points, weights, logs)
        relative = np.abs(law.loss(*points.inputs) / points.loss - 1)
        scale = 1.4826 * float(np.median(relative))  # the deviation, where errors are normal
        if scale < 1e-9:
            break
        weights = points.loss**-2 * np.minimum(1, _HUBER * scale / np.maximum(relative, 1e-300))
        logs = _exponents(points, weights, np.array([logs]), _NEXT_STEP)
    return _law(points, weights, logs), logs


def _grid(sides: int, start: Sequence[float] | None) -> Floats:
    """Returns logarithms of exponents to begin with [e, sides]: a grid, coarser where there is a `start`.

    `start` comes first in it.
    """
    low, high = np.log(EXPONENTS)
    axis = np.linspace(low, high, 12 if start is None else 4)
    grid = np.array(list(product(axis, repeat=sides)))
    return grid if start is None else np.vstack([start, grid])


def _exponents(points: Points, weights: Floats, tried: Floats, step: float) -> list[float]:
    """Returns the logarithms of the best exponents.

    They are the best of those tried [e, sides], moved by steps that shrink where no step helps.
    """
    losses = _projected(points, weights, tried)[1]
    best, loss = tried[int(losses.argmin())], float(losses.min())
    moves = np.array([move for move in product((-1, 0, 1), repeat=tried.shape[1]) if any(move)])
    while step > _FINEST:
        around = np.clip(best + step * moves, *np.log(EXPONENTS))
        losses = _projected(points, weights, around)[1]
        if losses.min() < loss:
            best, loss = around[int(losses.argmin())], float(losses.min())
        else:
            step /= 2
    return [float(value) for value in best]


def _projected(points: Points, weights: Floats, logs: Floats) -> tuple[Floats, Floats]:
    """Returns coefficients [e, 1 + sides] and losses [e] of the best law at each set of exponents.

    logs: logarithms of exponents [e, sides].

    A coefficient is of the power of a side over its smallest value.
    """
    powers = [
        (side / side.min())[None, :] ** -np.exp(logs[:, [number]])
        for number, side in enumerate(_sides(points))
    ]
    columns = np.stack([np.ones_like(powers[0]), *powers], -1)
    return nonnegative(columns, points.loss, weights)


def _law(points: Points, weights: Floats, logs: Sequence[float]) -> Law:
    coefficients = _projected(points, weights, np.array([logs]))[0][0]
    exponents = np.where(coefficients[1:] > 0, np.exp(logs), 0.0)
    sizes = [float(side.min()) for side in _sides(points)]
    real = [
        float(c * size**exponent)
        for c, size, exponent in zip(coefficients[1:], sizes, exponents, strict=True)
    ]
    law = Law(float(coefficients[0]), real[0], float(exponents[0]), real[1], float(exponents[1]))
    return law if len(real) == 2 else replace(law, c=real[2], gamma=float(exponents[2]))
