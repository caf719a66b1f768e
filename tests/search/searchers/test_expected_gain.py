"""The expected hypervolume gain against its definition: sampled scores, and hypervolumes by moocore."""

import math

import numpy as np
import pytest

from search import pareto
from search.searchers.expected_gain import expected_gain, open_boxes, sides_of


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_equals_the_mean_gain_of_samples(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    front, reference = rng.random((8, objectives)), np.full(objectives, 1.2)
    means, deviations = 0.8 * rng.random((4, objectives)), 0.05 + 0.2 * rng.random((4, objectives))
    expected = expected_gain(means, deviations, sides_of(open_boxes(front, reference)))
    before = pareto.hypervolume(front, reference)
    for mean, deviation, found in zip(means, deviations, expected, strict=True):
        samples = mean + deviation * rng.normal(size=(4000, objectives))
        gains = [pareto.hypervolume(np.vstack([front, sample]), reference) - before for sample in samples]
        assert found == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(4000) + 1e-5)


def test_exact_predictions_gain_what_they_add() -> None:
    front, reference = [[0.2, 0.8], [0.5, 0.5], [0.8, 0.2]], np.array([1.0, 1.0])
    points = np.array([[0.3, 0.6], [0.5, 0.5], [0.9, 0.9], [0.1, 0.1], [-1.0, 0.9], [2.0, 0.0]])
    before = pareto.hypervolume(front, reference)
    added = [pareto.hypervolume([*front, point], reference) - before for point in points]
    found = expected_gain(points, np.zeros_like(points), sides_of(open_boxes(front, reference)))
    assert found == pytest.approx(added)


@pytest.mark.parametrize("objectives", [2, 3])
def test_equals_the_sum_over_all_boxes(objectives: int) -> None:
    """One number at a time, by its formula at either end of each box, however far from the prediction."""
    rng = np.random.default_rng(objectives)
    front, reference = rng.random((12, objectives)), np.ones(objectives)
    means, deviations = rng.random((5, objectives)), 10 ** -rng.uniform(0.5, 4, (5, objectives))
    boxes = open_boxes(front, reference)
    found = expected_gain(means, deviations, sides_of(boxes))
    for mean, deviation, gain in zip(means, deviations, found, strict=True):
        volumes = [
            math.prod(
                below(high, *own) - below(low, *own)
                for (low, high), *own in zip(box, mean, deviation, strict=True)
            )
            for box in boxes
        ]
        assert gain == pytest.approx(sum(volumes), rel=1e-9, abs=1e-15)


def below(edge: float, mean: float, deviation: float) -> float:
    """The mean of max(0, edge - y) for a normal y."""
    if edge == -math.inf:
        return 0.0
    z = (edge - mean) / deviation
    likely = math.erfc(-z / math.sqrt(2)) / 2
    return (edge - mean) * likely + deviation * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def test_boxes_are_disjoint_and_leave_out_what_is_dominated() -> None:
    rng = np.random.default_rng(0)
    front, reference = rng.random((12, 3)), np.ones(3)
    boxes = open_boxes(front, reference)
    for point in rng.random((500, 3)):
        inside = ((boxes[:, :, 0] < point) & (point < boxes[:, :, 1])).all(1).sum()
        assert inside == (0 if any((other <= point).all() for other in front) else 1)


def test_without_a_frontier_all_below_the_reference_is_open() -> None:
    sides = sides_of(open_boxes(np.empty((0, 2)), [1.0, 1.0]))
    gain = expected_gain(np.array([[0.5, 0.25]]), np.zeros((1, 2)), sides)
    assert gain == pytest.approx([0.5 * 0.75])
