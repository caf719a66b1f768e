"""The expected hypervolume improvement of a candidate, computed exactly.

The prediction of each objective is an independent normal distribution. A point y adds the volume of all u
between y and the reference that no point of the frontier dominates. The expectation of this volume is the
integral over these u of the product of P(y_i < u_i). With the region cut into boxes, it is a sum of products
of one-dimensional integrals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from search import pareto
from search.pareto import Floats

Box = tuple[tuple[float, float], ...]
Places = slice | NDArray[np.int64]
FAR = 9.0
"""Deviations from an edge beyond which a value is surely on its side: the error is below the rounding."""


def open_boxes(frontier: ArrayLike, reference: ArrayLike) -> Floats:
    """The region where a new point would add hypervolume, as disjoint boxes [boxes, m, (low, high)].

    frontier: points [n, m].
    reference: the upper corner [m] of the region.
    """
    corner = np.asarray(reference, float)
    points = np.asarray(frontier, float).reshape(-1, len(corner))
    inside = points[(points < corner).all(1)]
    if len(corner) == 2:
        return _strips(inside, corner)
    return np.array(_boxes(inside, corner), float).reshape(-1, len(corner), 2)


@dataclass(frozen=True)
class Sides:
    """The sides of boxes in one objective.

    edges: the distinct ends of all boxes, ascending [e]. The first may be -inf.
    low, high: the places of each box's ends among the edges.
    """

    edges: Floats
    low: Places
    high: Places


def sides_of(boxes: Floats) -> tuple[Sides, ...]:
    """The sides of boxes [boxes, m, (low, high)] in each objective, from `open_boxes`."""
    found = []
    for column in range(boxes.shape[1]):
        edges, places = np.unique(boxes[:, column], return_inverse=True)
        low, high = places.reshape(-1, 2).T
        found.append(Sides(edges, _sliced(low), _sliced(high)))
    return tuple(found)


def _sliced(places: NDArray[np.int64]) -> Places:
    """The places as a slice, which copies nothing, where they are equal or in steps of 1 or -1.

    All sides of two objectives are, see `_strips`. One place stands for equal ones.
    """
    if not len(places):
        return places
    if (places == places[0]).all():
        return slice(int(places[0]), int(places[0]) + 1)
    for step in (1, -1):
        if (np.diff(places) == step).all():
            end = int(places[-1]) + step
            return slice(int(places[0]), end if end >= 0 else None, step)
    return places


def expected_gain(means: Floats, deviations: Floats, sides: Sequence[Sides]) -> Floats:
    """The expected hypervolume improvements of candidates [n].

    means, deviations: predictions [n, m]. A deviation may be 0 for an objective that is known exactly.
    sides: of the region from `open_boxes`, by `sides_of`.
    """
    product: Floats = np.ones((len(means), 1))
    for column, side in enumerate(sides):
        below = _mean_below(side.edges, means[:, column], deviations[:, column])
        product = product * (below[:, side.high] - below[:, side.low])
    return np.asarray(product.sum(1))


def _mean_below(edges: Floats, means: Floats, deviations: Floats) -> Floats:
    """The mean of max(0, edge - y) for a normal y, the integral of P(y < u) over u up to the edge: [n, e].

    edges: ascending [e]; nothing is below -inf.
    means, deviations: of each y [n].
    """
    distance = edges - means[:, None]
    z = distance / np.maximum(deviations, 1e-12)[:, None]
    below = np.maximum(distance, 0)
    near = np.flatnonzero(np.abs(z) < FAR)
    close = z.take(near)
    density = np.exp(-0.5 * (close * close)) / np.sqrt(2 * np.pi)
    likely = torch.special.ndtr(torch.from_numpy(close)).numpy()
    inside = distance.take(near) * likely + deviations.take(near // len(edges)) * density
    below.put(near, np.maximum(inside, 0))
    return np.asarray(below)


def _strips(points: Floats, corner: Floats) -> Floats:
    """What `_boxes` gives for two objectives, without a step for each point: [boxes, 2, (low, high)]."""
    order = points[np.argsort(points[:, 1], kind="stable")]
    edges = np.array([-np.inf, *order[:, 1], corner[1]])
    right = np.minimum.accumulate(np.array([corner[0], *order[:, 0]]))
    strips = np.empty((len(right), 2, 2))
    strips[:, 0, 0], strips[:, 0, 1] = -np.inf, right
    strips[:, 1, 0], strips[:, 1, 1] = edges[:-1], edges[1:]
    return strips[edges[:-1] < edges[1:]]


def _boxes(points: Floats, corner: Floats) -> list[Box]:
    """Cuts slabs between neighbouring values of the last objective, then each slab by the points below it."""
    if len(corner) == 1:
        return [((-np.inf, float(min([corner[0], *points[:, 0]]))),)]
    order = points[np.argsort(points[:, -1], kind="stable")]
    edges = [-np.inf, *order[:, -1], corner[-1]]
    boxes: list[Box] = []
    for number in range(len(edges) - 1):
        if edges[number] < edges[number + 1]:
            below = order[:number, :-1]
            # Dominated points change nothing here. With one objective left, removing them would not be
            # faster.
            several = number > 1 and below.shape[1] > 1
            inner = _boxes(below[pareto.nondominated(below)] if several else below, corner[:-1])
            boxes += [(*box, (float(edges[number]), float(edges[number + 1]))) for box in inner]
    return boxes
