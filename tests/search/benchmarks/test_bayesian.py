"""Bayesian optimization as a searcher: with an acquisition function of the test's own, and with BoTorch's."""

import numpy as np
import pytest

from operators.base.errors import SpaceExhausted
from search.benchmarks.bayesian import BEGINNING, Bayesian, Rate, log_nehvi
from search.benchmarks.comparison import drive
from search.config.searcher import EvolutionSettings
from search.pareto import Floats
from search.searchers.evolution import Evolution
from search.spaces.encoding import Dimension, IntegerSpace, Vector

BOX = IntegerSpace(
    {**{f"x{number}": Dimension(6) for number in range(4)}, "kind": Dimension(3, ordered=False)}
)


def costs(member: Vector) -> tuple[float, float]:
    return float(sum(member)), float(sum((value - 3) ** 2 for value in member[:4]))


def lowest_sum(rows: Floats, scores: Floats, seed: int) -> Rate:
    """Rates the features of the ordered numbers alone, which are 0 to 1: the best members are all 0."""
    return lambda features: -features[:, :4].sum(1)


def test_it_begins_as_evolution_does_then_proposes_what_is_rated_highest() -> None:
    ours = Bayesian(BOX, lowest_sum, seed=3)
    theirs = Evolution(BOX, EvolutionSettings(population=BEGINNING), seed=3)
    for number in range(BEGINNING):
        proposal, expected = ours.ask(), theirs.ask()
        assert proposal == expected
        ours.tell(number, costs(proposal.candidate))
        theirs.tell(number, costs(expected.candidate))
    best = ours.ask()
    assert "acquired" in best.origin
    assert set(best.parents) <= set(ours.frontier)
    # Of the three members whose ordered numbers are all 0, the space's first seed is one.
    assert best.candidate in {(0, 0, 0, 0, 1), (0, 0, 0, 0, 2)}


def test_the_acquisition_function_is_given_all_scores() -> None:
    given = []

    def spy(rows: Floats, scores: Floats, seed: int) -> Rate:
        given.append((rows, scores, seed))
        return lowest_sum(rows, scores, seed)

    told: list[Vector] = []

    def noted(member: Vector) -> tuple[float, float]:
        told.append(member)
        return costs(member)

    drive(Bayesian(BOX, spy, seed=0), noted, BEGINNING + 2)
    assert [seed for _, _, seed in given] == [BEGINNING, BEGINNING + 1]
    for number, (rows, scores, _) in enumerate(given):
        known = told[: BEGINNING + number]
        assert rows.tolist() == [list(BOX.features(member).values()) for member in known]
        assert scores.tolist() == [list(costs(member)) for member in known]


def test_no_member_is_proposed_twice_until_none_is_left() -> None:
    space = IntegerSpace({"a": Dimension(5), "b": Dimension(5), "kind": Dimension(2, ordered=False)})
    proposer = Bayesian(space, lambda rows, scores, seed: lambda features: features.sum(1), seed=0)
    seen = set()
    for number in range(50):
        member = proposer.ask().candidate
        seen.add(member)
        proposer.tell(number, (float(member[0]), float(-member[1])))
    assert len(seen) == 50
    with pytest.raises(SpaceExhausted):
        proposer.ask()


def test_log_nehvi_rates_what_probably_dominates_above_what_does_not() -> None:
    pytest.importorskip("botorch", reason="needs pip install botorch")
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.random((20, 2)), np.full(20, 256.0)])  # the last column never varies
    scores = np.column_stack([10 + rows[:, 0] + rows[:, 1], 20 + rows[:, 1] - rows[:, 0]])
    # The first cost is least at (0, 0), the second at (1, 0); members with the second number 0 are optimal.
    rated = log_nehvi(rows, scores, 1)(np.array([[0.5, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 1.0, 0.0]]))
    assert rated.shape == (3,)
    assert rated[0] > rated[1] > rated[2]
    again = log_nehvi(rows, scores, 1)(np.array([[0.5, 0.0, 0.0]]))
    assert again == pytest.approx(rated[:1], rel=1e-6)
