"""Dominance, fronts, crowding and hypervolume against brute force and moocore."""

from itertools import product

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from search import pareto

# Few whole values, so that duplicates and ties in single objectives are common.
POINTS = st.tuples(st.integers(0, 24), st.integers(1, 4)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(0, 5).map(float))
)


def brute_dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


@given(POINTS)
@settings(deadline=None)
def test_nondominated_agrees_with_definition_and_moocore(points: np.ndarray) -> None:
    mask = pareto.nondominated(points)
    assert mask.tolist() == [not any(brute_dominates(other, point) for other in points) for point in points]
    if len(points):
        assert mask.tolist() == moocore.is_nondominated(points, keep_weakly=True).tolist()


@given(POINTS)
@settings(deadline=None)
def test_ranks_agree_with_peeling(points: np.ndarray) -> None:
    ranks = pareto.ranks(points)
    left, front = list(range(len(points))), 0
    while left:
        peeled = [i for i in left if not any(brute_dominates(points[j], points[i]) for j in left)]
        assert all(ranks[i] == front for i in peeled)
        left, front = [i for i in left if i not in peeled], front + 1


@given(POINTS)
@settings(deadline=None)
def test_hypervolume_agrees_with_counting_unit_cells(points: np.ndarray) -> None:
    reference = np.full(points.shape[1], 4.0)
    cells = np.array(list(product(range(4), repeat=points.shape[1])), float)
    covered = [any((point <= cell).all() for point in points) for cell in cells]
    assert pareto.hypervolume(points, reference) == pytest.approx(sum(covered))


def test_points_beyond_the_reference_do_not_count() -> None:
    assert pareto.hypervolume([[1, 1]], [3, 3]) == pytest.approx(4)
    assert pareto.hypervolume([[1, 1], [-100, 3], [0, 50]], [3, 3]) == pytest.approx(4)
    assert pareto.hypervolume([[3, 0]], [3, 3]) == 0
    assert pareto.hypervolume([], [3, 3]) == 0
    assert pareto.hypervolume(np.empty((0, 2)), [3, 3]) == 0


def test_crowding_by_hand() -> None:
    # Ends are infinitely far; in between, neighbours' distance over the range, summed over both objectives.
    distance = pareto.crowding([[0, 10], [1, 6], [4, 2], [10, 0]])
    assert distance[[0, 3]].tolist() == [np.inf, np.inf]
    assert distance[1:3].tolist() == pytest.approx([4 / 10 + 8 / 10, 9 / 10 + 6 / 10])


@given(POINTS)
@settings(deadline=None)
def test_crowding_is_defined_for_every_front(points: np.ndarray) -> None:
    distance = pareto.crowding(points)
    assert distance.shape == (len(points),)
    assert not np.isnan(distance).any()
    assert (distance >= 0).all()


def test_crowding_of_few_and_of_equal_points() -> None:
    assert pareto.crowding(np.empty((0, 2))).tolist() == []
    assert pareto.crowding([[1, 2]]).tolist() == [np.inf]
    assert pareto.crowding([[1, 2], [2, 1]]).tolist() == [np.inf, np.inf]
    assert pareto.crowding([[1, 2]] * 3).tolist() == [0, 0, 0]
    assert pareto.crowding([[0, 7], [1, 7], [3, 7]]).tolist() == pytest.approx([np.inf, 1, np.inf])


@given(POINTS.filter(len))
@settings(deadline=None)
def test_every_point_counts_towards_the_reference_point(points: np.ndarray) -> None:
    reference = pareto.reference_point(points)
    assert (points < reference).all()
    assert pareto.hypervolume(points, reference) > 0


def test_reference_point_lies_a_margin_beyond_the_worst() -> None:
    assert pareto.reference_point([[0, 5], [10, 1]]).tolist() == pytest.approx([11, 5.4])
    assert pareto.reference_point([[-4, 0]]).tolist() == pytest.approx([-3.6, 0.1])
    with pytest.raises(ValueError, match="at least one point"):
        pareto.reference_point([])


def test_points_need_two_dimensions() -> None:
    with pytest.raises(ValueError, match=r"\[n, m\]"):
        pareto.ranks([1.0, 2.0])
    assert pareto.ranks([]).tolist() == []
    assert pareto.nondominated([]).tolist() == []


@given(POINTS, st.data())
@settings(deadline=None)
def test_errors_only_take_dominance_away(points: np.ndarray, data: st.DataObject) -> None:
    errors = data.draw(arrays(float, points.shape, elements=st.sampled_from([0.0, 0.4, 1.0, 3.0])))
    exact, noisy = pareto.nondominated(points), pareto.nondominated(points, errors)
    assert (noisy | ~exact).all()
    assert pareto.nondominated(points, np.zeros_like(points)).tolist() == exact.tolist()
    for index, point in enumerate(points):
        beaten = False
        for other, error in zip(points, errors, strict=True):
            clearly = [
                x + (e**2 + f**2) ** 0.5 < y
                for x, e, y, f in zip(other, error, point, errors[index], strict=True)
            ]
            beaten |= bool((other <= point).all()) and any(clearly)
        assert noisy[index] == (not beaten)


@given(POINTS, st.data(), st.integers(1, 40))
@settings(deadline=None)
def test_parts_of_a_comparison_give_what_the_whole_gives(
    points: np.ndarray, data: st.DataObject, together: int
) -> None:
    """Doubts and dominance by their definitions, with figures that are not to be trusted."""
    errors = data.draw(arrays(float, points.shape, elements=st.sampled_from([0.0, 0.4, 1.0, np.inf])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pareto, "_TOGETHER", together)
        patch.setattr(pareto, "_FIRST", 1 + together % 3)
        kept, parts = pareto.nondominated(points, errors), pareto.doubts(points, errors)
    count = range(len(points))
    dominates = [[brute_dominates(points[i], points[j]) for j in count] for i in count]
    beaten = [any(dominates[i][j] for i in count) for j in count]
    expected = np.zeros(len(points), int)
    for j in count:
        off = [np.hypot(errors[i], errors[j]) for i in count]
        clearly = [(points[i] + off[i] < points[j]).any() and np.isfinite(errors[i]).all() for i in count]
        assert kept[j] == (not any(dominates[i][j] and clearly[i] for i in count))
        sure = any(dominates[i][j] and (points[i] + off[i] <= points[j]).all() for i in count)
        for i in count if beaten[j] and not sure else ():
            if dominates[i][j] and not beaten[i]:
                expected[[i, j]] += 1
    assert parts.tolist() == expected.tolist()


def test_two_that_cannot_be_told_apart_do_not_dominate_each_other() -> None:
    loss_and_ms, errors = [[2.0, 1.000], [2.0, 1.004], [2.0, 1.100], [2.5, 0.998]], [[0.0, 0.005]] * 4
    assert pareto.nondominated(loss_and_ms, errors).tolist() == [True, True, False, True]
    assert pareto.nondominated(loss_and_ms).tolist() == [True, False, False, True]
