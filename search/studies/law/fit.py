"""The depth-width law, fitted to measured losses.

The law is L(D, W, N) = L0 + a·D^-α + b·W^-β + c·N^-γ (Nemotron-Flash, arXiv 2511.18890).

For given exponents the law is linear, with coefficients that are not negative: these are solved for exactly,
and only the exponents are searched (variable projection; Golub and Pereyra 1973). Residuals are relative, so
that one law serves losses and perplexities, and weigh less where they are far out (Huber). Intervals are
percentiles over fits to points drawn again with replacement.
"""

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
    everything = np.arange(len(points))[None]
    laws, logs = _fit(points, everything, _grid(len(_sides(points)), 12))
    rng = np.random.default_rng(0)  # a fixed seed gives the same points the same interval
    drawn: list[NDArray[np.int64]] = []
    while len(drawn) < draws:
        index = rng.integers(len(points), size=len(points))
        if all(len(set(side)) >= 3 for side in _sides(points)[:, index]):
            drawn.append(index)
    # The draws begin at the exponents of all points, and look at a coarser grid.
    tried = np.vstack([logs, _grid(logs.shape[1], 4)])
    return Fitted(laws[0], tuple(_fit(points, np.array(drawn), tried)[0]) if drawn else ())


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
    """Solves least squares with coefficients of at least 0, for many problems at once.

    columns: [e, n, m].
    values: [e, n], or [n] where all problems have the same.
    weights: as values.

    Returns coefficients [e, m] and losses [e], both exact.

    It tries every set of coefficients that may be above 0. These are 2^m, so m must be small.
    `scipy.optimize.nnls` solves one problem a call, and a fit with its intervals solves 100,000 or more.
    """
    count, n, terms = columns.shape
    values, weights = np.broadcast_to(values, (count, n)), np.broadcast_to(weights, (count, n))
    scale = np.sqrt((columns**2).mean(1))
    scaled = columns / scale[:, None]
    best, loss = _least_squares(scaled, values, weights)
    # Where no coefficient is below 0, no other set can be better.
    rest = np.flatnonzero((best < 0).any(1))
    if len(rest):
        scaled, values, weights = scaled[rest], values[rest], weights[rest]
        best[rest], loss[rest] = 0, (weights * values**2).sum(1)
        for chosen in (list(some) for size in range(1, terms) for some in combinations(range(terms), size)):
            solved, reached = _least_squares(scaled[:, :, chosen], values, weights)
            better = (solved >= 0).all(1) & (reached < loss[rest])
            best[rest[better]] = 0
            best[rest[better][:, None], chosen] = solved[better]
            loss[rest[better]] = reached[better]
    return best / scale, loss


def _least_squares(columns: Floats, values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Returns coefficients [e, m] and losses [e]; columns are [e, n, m], values and weights [e, n]."""
    weighted = (columns * weights[:, :, None]).transpose(0, 2, 1)
    # Keeps the system solvable where columns are multiples of each other.
    ridge = 1e-13 * weights.sum(1)[:, None, None] * np.eye(columns.shape[2])
    solved = np.linalg.solve(weighted @ columns + ridge, weighted @ values[:, :, None])
    residual = values - (columns @ solved)[:, :, 0]
    return solved[:, :, 0], (weights * residual**2).sum(1)


def _tails() -> tuple[float, float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2


def _sides(points: Points) -> Floats:
    """Returns what the law has powers of [sides, n]: depth, width, and tokens where they differ."""
    return np.array(points.inputs if len(set(points.tokens)) > 1 else points.inputs[:2])


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


@dataclass(frozen=True)
class _Draws:
    """Points of many draws. The law is fitted to each draw by itself.

    logs: logarithms of the sides over their smallest value in the draw [draws, sides, n].
    smallest: that value [draws, sides].
    loss: [draws, n].
    weights: of the squared residuals [draws, n].
    """

    logs: Floats
    smallest: Floats
    loss: Floats
    weights: Floats

    def take(self, index: NDArray[np.int64]) -> "_Draws":
        return _Draws(self.logs[index], self.smallest[index], self.loss[index], self.weights[index])


def _fit(points: Points, drawn: NDArray[np.int64], tried: Floats) -> tuple[list[Law], Floats]:
    """Fits the law to every draw.

    drawn: which points a draw has [draws, n].
    tried: logarithms of the exponents to begin with [e, sides].

    Returns the laws, and the logarithms of their exponents [draws, sides].
    """
    sides, loss = _sides(points)[:, drawn].swapaxes(0, 1), points.loss[drawn]
    smallest = sides.min(2)
    draws = _Draws(np.log(sides / smallest[:, :, None]), smallest, loss, loss**-2)
    exponents = _exponents(draws, np.broadcast_to(tried, (len(drawn), *tried.shape)), _FIRST_STEP)
    for _ in range(_REWEIGHTINGS):
        coefficients = _projected(draws, exponents[:, None])[0]
        predicted = (_columns(draws, exponents[:, None])[:, 0] @ coefficients[:, 0, :, None])[:, :, 0]
        relative = np.abs(predicted / loss - 1)
        # The deviation, where errors are normal.
        scale = 1.4826 * np.median(relative, axis=1, keepdims=True)
        # Points that the law meets exactly keep their weights.
        going = np.flatnonzero(scale >= 1e-9)
        if not len(going):
            break
        weights = loss**-2 * np.minimum(1, _HUBER * scale / np.maximum(relative, 1e-300))
        draws = replace(draws, weights=np.where(scale >= 1e-9, weights, draws.weights))
        exponents[going] = _exponents(draws.take(going), exponents[going, None], _NEXT_STEP)
    return _laws(draws, exponents), exponents


def _grid(sides: int, steps: int) -> Floats:
    """Returns logarithms of exponents, `steps` a side, in every combination [e, sides]."""
    low, high = np.log(EXPONENTS)
    return np.array(list(product(np.linspace(low, high, steps), repeat=sides)))


def _exponents(draws: _Draws, tried: Floats, step: float) -> Floats:
    """Returns the logarithms of each draw's best exponents [draws, sides].

    They are the best of those tried [draws, e, sides], moved by steps that shrink where no step helps.
    """
    best, loss = _best(draws, tried)
    moves = np.array([move for move in product((-1, 0, 1), repeat=tried.shape[2]) if any(move)])
    steps = np.full(len(best), step)
    while len(going := np.flatnonzero(steps > _FINEST)):
        around = best[going, None] + steps[going, None, None] * moves
        moved, reached = _best(draws.take(going), np.clip(around, *np.log(EXPONENTS)))
        better = reached < loss[going]
        best[going[better]], loss[going[better]] = moved[better], reached[better]
        steps[going[~better]] /= 2
    return best


def _best(draws: _Draws, tried: Floats) -> tuple[Floats, Floats]:
    """Returns the best of the exponents tried for each draw [draws, sides], and its loss [draws]."""
    losses = _projected(draws, tried)[1]
    rows, least = np.arange(len(losses)), losses.argmin(1)
    return tried[rows, least], losses[rows, least]


def _columns(draws: _Draws, tried: Floats) -> Floats:
    """Returns what the coefficients multiply [draws, e, n, 1 + sides]: 1, and the sides' powers."""
    powers = np.exp(-np.exp(tried)[..., None] * draws.logs[:, None])
    # Points are next to each other in memory, which is twice as fast.
    return np.concatenate([np.ones_like(powers[:, :, :1]), powers], 2).swapaxes(2, 3)


def _projected(draws: _Draws, tried: Floats) -> tuple[Floats, Floats]:
    """Returns coefficients and losses of the best law at each set of exponents.

    tried: logarithms of exponents [draws, e, sides].

    Coefficients are [draws, e, 1 + sides], losses [draws, e].
    """
    columns = _columns(draws, tried)
    count, each, n, terms = columns.shape
    values, weights = (np.repeat(array, each, axis=0) for array in (draws.loss, draws.weights))
    coefficients, losses = nonnegative(columns.reshape(-1, n, terms), values, weights)
    return coefficients.reshape(count, each, terms), losses.reshape(count, each)


def _laws(draws: _Draws, logs: Floats) -> list[Law]:
    coefficients = _projected(draws, logs[:, None])[0][:, 0]
    exponents = np.where(coefficients[:, 1:] > 0, np.exp(logs), 0.0)
    real = coefficients[:, 1:] * draws.smallest**exponents
    # A row of floor, a, alpha, b, beta ..., as Law has them.
    rows = np.column_stack([coefficients[:, 0], np.stack([real, exponents], 2).reshape(len(logs), -1)])
    return [Law(*row) for row in rows.tolist()]
