"""The expected hypervolume improvement of a candidate, computed exactly.

The prediction of each objective is an independent normal distribution. A point y adds the volume of all u
between y and the reference that no point of the frontier dominates. The expectation of this volume is the
integral over these u of the product of P(y_i < u_i). With the region cut into boxes, it is a sum of products
of one-dimensional integrals.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike

from search import pareto
from search.pareto import Floats

Box = tuple[tuple[float, float], ...]


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


def expected_gain(means: Floats, deviations: Floats, boxes: Floats) -> Floats:
    """The expected hypervolume improvements of candidates [n].

    means, deviations: predictions [n, m]. A deviation may be 0 for an objective that is known exactly.
    boxes: the region from `open_boxes`.
    """
    product: Floats = np.ones((len(means), len(boxes)))
    for column in range(means.shape[1]):
        edges, places = np.unique(boxes[:, column], return_inverse=True)
        below = _mean_below(edges, means[:, column, None], deviations[:, column, None])[
            :, places.reshape(-1, 2)
        ]
        product *= below[..., 1] - below[..., 0]
    return np.asarray(product.sum(1))


def _mean_below(edge: Floats, mean: Floats, deviation: Floats) -> Floats:
    """The mean of max(0, edge - y) for a normal y: the integral of P(y < u) over u up to the edge."""
    safe = np.maximum(deviation, 1e-12)
    distance = np.where(np.isfinite(edge), edge, mean) - mean
    z = distance / safe
    density = np.exp(-0.5 * np.minimum(z * z, 1e3)) / np.sqrt(2 * np.pi)
    below = distance * torch.special.ndtr(torch.from_numpy(z)).numpy() + deviation * density
    return np.where(np.isfinite(edge), np.maximum(below, 0), 0.0)


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
