"""Pareto dominance.

Points are arrays [n, m], one row a point, one column an objective. Less is better in every column.

Errors [n, m] are how far off each number may be. Where they are given, a point dominates another only if it
is better somewhere by more than the error of the difference. Two points that cannot be told apart do not
dominate each other. This cannot make a cycle, since every such dominance is one without errors too.

An infinite error marks a number that is not to be trusted. A point with one dominates nothing. Only a point
that is no worse as far as is known, and clearly better elsewhere, dominates it.
"""

from collections.abc import Iterator

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Pairs of points that are compared at once: more would leave the cache, and fill the memory.
_TOGETHER = 2**18
# Points that are tried first as dominators of all others; each later round tries twice as many.
_FIRST = 32


def nondominated(points: ArrayLike, errors: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Marks the points [n, m] that no other point dominates: [n].

    Equal points do not dominate each other.
    """
    table = _table(points)
    if not table.size:
        return np.ones(len(table), bool)
    if errors is None:
        return np.asarray(moocore.is_nondominated(table, keep_weakly=True), bool)
    off = _table(errors)
    sure = np.flatnonzero(np.isfinite(off).all(1))
    strongest = sure[_strongest(table[sure], off[sure])]
    return ~_dominated(table, off, strongest, in_every_column=False)


def first_dominators(points: ArrayLike, errors: ArrayLike | None = None) -> NDArray[np.int64]:
    """Returns the smallest row of a point that dominates each of the points [n, m]: [n].

    It is n where none does. Of the first k rows alone, those are not dominated whose value is at least k.
    """
    table = _table(points)
    off = np.zeros_like(table) if errors is None else _table(errors)
    first = np.full(len(table), len(table), np.int64)
    if not table.size:
        return first
    sure = np.flatnonzero(np.isfinite(off).all(1))
    for some in _chunks(np.arange(len(table)), len(sure)):
        dominance = _clear_dominance(table, off, sure, some, in_every_column=False)
        places = sure[dominance.argmax(0)] if len(sure) else first[some]
        first[some] = np.where(dominance.any(0), places, len(table))
    return first


def doubts(points: ArrayLike, errors: ArrayLike) -> NDArray[np.int64]:
    """Counts the doubtful dominances in which each of points [n, m] has a part: [n].

    A point is dominated in doubt where no point that dominates it is better in every column by at least the
    error of the difference. The dominated point has a part in that, and so have the members of the frontier
    that dominate it.
    """
    table, off = _table(points), _table(errors)
    parts = np.zeros(len(table), np.int64)
    if not table.size:
        return parts
    on_frontier = nondominated(table)
    sure = _dominated(table, off, _strongest(table, off), in_every_column=True)
    best, doubted = np.flatnonzero(on_frontier), np.flatnonzero(~on_frontier & ~sure)
    for some in _chunks(doubted, len(best)):
        dominance = _dominance(table[best], table[some])
        parts[some] += dominance.sum(0)
        parts[best] += dominance.sum(1)
    return parts


def _strongest(table: Floats, off: Floats) -> NDArray[np.int64]:
    """The places of points to which no other is equal or better in every value and in every error.

    Whatever any point dominates, one of these dominates.
    """
    if not table.size:
        return np.empty(0, np.int64)
    return np.flatnonzero(moocore.is_nondominated(np.hstack([table, off]), keep_weakly=False))


def _dominated(
    table: Floats, off: Floats, by: NDArray[np.int64], *, in_every_column: bool
) -> NDArray[np.bool_]:
    """Marks the points that one of the points `by` dominates by more than the error of the difference: [n].

    in_every_column: whether it has to be better by at least that error in every column, and not only by more
        than that in one.
    """
    left, size = np.arange(len(table)), _FIRST
    # Points that are good in all columns come first. They dominate most others, which are then left out.
    waiting = by[table[by].argsort(0).argsort(0).sum(1).argsort()]
    while len(waiting) and len(left):
        best, waiting, size = waiting[:size], waiting[size:], 2 * size
        dominated = [
            _clear_dominance(table, off, best, some, in_every_column=in_every_column).any(0)
            for some in _chunks(left, len(best))
        ]
        left = left[~np.concatenate(dominated)]
    marked = np.ones(len(table), bool)
    marked[left] = False
    return marked


def _clear_dominance(
    table: Floats,
    off: Floats,
    by: NDArray[np.int64],
    some: NDArray[np.int64],
    *,
    in_every_column: bool,
) -> NDArray[np.bool_]:
    """Whether point i of `by` dominates point j of `some` by more than the error of the difference: [i, j].

    in_every_column: as for `_dominated`.
    """
    dominance = _dominance(table[by], table[some])
    rows, columns = np.nonzero(dominance)  # few pairs, and the error of a difference takes longest
    better, worse = by[rows], some[columns]
    most = table[better] + np.hypot(off[better], off[worse])
    dominance[rows, columns] = (
        (most <= table[worse]).all(1) if in_every_column else (most < table[worse]).any(1)
    )
    return dominance


def _chunks(places: NDArray[np.int64], against: int) -> Iterator[NDArray[np.int64]]:
    """The places in parts whose comparisons with so many others fit into the cache."""
    size = max(1, _TOGETHER // max(1, against))
    for first in range(0, len(places), size):
        yield places[first : first + size]


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


def _dominance(table: Floats, others: Floats) -> NDArray[np.bool_]:
    """Returns whether point i of the table dominates point j of the others, apart from errors: [i, j].

    It works column by column, since [n, k, m] at once would not stay in the cache.
    """
    no_worse = np.ones((len(table), len(others)), bool)
    better = np.zeros_like(no_worse)
    for values, other in zip(table.T, others.T, strict=True):
        no_worse &= values[:, None] <= other
        better |= values[:, None] < other
    return no_worse & better
