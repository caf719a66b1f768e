"""Pareto dominance.

Points are arrays [n, m], one row a point, one column an objective. Less is better in every column.

Errors [n, m] are how far off each number may be. Where they are given, a point dominates another only if it
is better somewhere by more than the error of the difference. Two points that cannot be told apart do not
dominate each other. This cannot make a cycle, since every such dominance is one without errors too.

An infinite error marks a number that is not to be trusted. A point with one dominates nothing. Only a point
that is no worse as far as is known, and clearly better elsewhere, dominates it.
"""

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_BLOCK = 256  # points whose dominators are looked for at once: memory grows with n, not with its square


def nondominated(points: ArrayLike, errors: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Marks the points [n, m] that no other point dominates: [n].

    Equal points do not dominate each other.
    """
    return np.asarray(first_dominators(points, errors) == len(_table(points)))


def first_dominators(points: ArrayLike, errors: ArrayLike | None = None) -> NDArray[np.int64]:
    """Returns the smallest row of a point that dominates each of the points [n, m]: [n].

    It is n where none does. Of the first k rows alone, those are not dominated whose value is at least k.
    """
    table, off = _table(points), None if errors is None else _table(errors)
    first = np.full(len(table), len(table), np.int64)
    for begin in range(0, len(table), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        dominance = _dominance(table, off, block)
        rows = dominance.argmax(0)
        first[block] = np.where(dominance.any(0), rows, len(table))
    return first


def doubts(points: ArrayLike, errors: ArrayLike) -> NDArray[np.int64]:
    """Counts the doubtful dominances in which each of points [n, m] has a part: [n].

    A point is dominated in doubt where no point that dominates it is better in every column by at least the
    error of the difference. The dominated point has a part in that, and so have the members of the frontier
    that dominate it.
    """
    table, off = _table(points), _table(errors)
    dominance = _dominance(table)
    sure = dominance.copy()
    for values, error in zip(table.T, off.T, strict=True):
        sure &= values[:, None] + np.hypot(error[:, None], error) <= values
    beaten = np.asarray(dominance.any(0))
    doubtful = dominance & (beaten & ~sure.any(0)) & ~beaten[:, None]
    return np.asarray(doubtful.sum(0) + doubtful.sum(1))


def ranks(points: ArrayLike) -> NDArray[np.int64]:
    """Returns the number of the front of each point [n, m]: [n].

    0 is the frontier, k + 1 the frontier of the points without fronts 0 to k (Deb et al. 2002).
    """
    table = _table(points)
    if not table.size:
        return np.zeros(len(table), np.int64)
    return np.asarray(moocore.pareto_rank(table), np.int64)


def crowding(points: ArrayLike) -> Floats:
    """Returns the crowding distance of points [n, m] that form one front: [n] (Deb et al. 2002).

    A larger distance is a lonelier point. The ends of each objective are infinitely far. An objective in
    which all points are equal adds nothing.
    """
    table = _table(points)
    distance = np.zeros(len(table))
    if len(table) <= 2:
        return np.full(len(table), np.inf)
    for values in table.T:
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        span = ordered[-1] - ordered[0]
        if span > 0:
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return distance


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Returns the volume between the points [n, m] and the reference [m].

    Points that are not better than the reference in each objective do not count.
    """
    table, corner = _table(points), np.asarray(reference, float)
    inside = table[(table < corner).all(1)] if table.size else table
    return float(moocore.hypervolume(inside, ref=corner)) if inside.size else 0.0


def reference_point(points: ArrayLike) -> Floats:
    """Returns a reference [m] for hypervolumes: a little worse than the worst value of each objective.

    It lies a tenth of the objective's range beyond the worst value. Where there is no range (one point, or
    all equal) it lies a tenth of the value's size beyond, so that the points still count.

    Raises ValueError where there is no point.
    """
    table = _table(points)
    if not table.size:
        raise ValueError("reference point: expected at least one point, got none")
    worst = table.max(0)
    span = worst - table.min(0)
    size = np.where(span > 0, span, np.where(worst != 0, np.abs(worst), 1.0))
    return np.asarray(worst + 0.1 * size)


def _table(points: ArrayLike) -> Floats:
    table = np.asarray(points, float)
    if table.size == 0:
        return table.reshape(0, table.shape[-1] if table.ndim == 2 else 0)
    if table.ndim != 2:
        raise ValueError(
            f"points: expected an array [n, m], got {table.ndim} dimension{'s' if table.ndim != 1 else ''}"
        )
    return table


_ALL = slice(None)


def _dominance(table: Floats, errors: Floats | None = None, block: slice = _ALL) -> NDArray[np.bool_]:
    """Returns whether point i dominates point j of a block of the points: [i, j].

    It works column by column, since [n, n, m] at once would not stay in the cache.
    """
    no_worse = np.ones((len(table), len(table[block])), bool)
    better = np.zeros_like(no_worse)
    for column, values in enumerate(table.T):
        no_worse &= values[:, None] <= values[block]
        unclear = 0.0 if errors is None else np.hypot(errors[:, column, None], errors[block, column])
        better |= values[:, None] + unclear < values[block]
    if errors is not None:
        better &= np.isfinite(errors).all(1, keepdims=True)
    return no_worse & better
