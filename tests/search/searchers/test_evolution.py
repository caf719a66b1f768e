"""Evolution on a small problem of whole numbers: repeatable, never twice the same, better than random."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from operators.base.errors import SpaceExhausted
from search import pareto
from search.config.searcher import EvolutionSettings
from search.config.space import SpaceSettings
from search.searchers.contract import Proposal
from search.searchers.evolution import Evolution
from search.spaces.contract import Space
from search.spaces.free import ArchitectureSpace
from tests.helpers.driven_searcher import Event, Grid, Point, T, drive, scores


def evolution(space: Space[Point] | None = None, *, seed: int = 0, **changes: Any) -> Evolution[Point]:
    return Evolution(space or Grid(), EvolutionSettings(**changes), seed=seed)


def proposals(events: list[Event]) -> list[Proposal[Point]]:
    return [content for kind, content in events if kind == "propose"]


def tells(events: list[Event]) -> list[tuple[int, tuple[float, ...] | None]]:
    return [content for kind, content in events if kind == "tell"]


def test_order_of_tells_matters_to_nothing_but_age() -> None:
    first, second = evolution(population=8), evolution(population=8)
    told = [(proposal.number, scores(proposal.candidate)) for proposal in (first.ask() for _ in range(8))]
    for _ in range(8):
        second.ask()
    for number, result in told:
        first.tell(number, result)
    for number, result in reversed(told):
        second.tell(number, result)
    assert set(first.frontier) == set(second.frontier)
    assert set(first.population) == set(second.population)
    assert first.ask() == second.ask()


def test_never_proposes_twice_even_while_pending() -> None:
    found = proposals(drive(evolution(Grid(length=3, size=6), second_mutation=0.5), 150, pending=10))
    assert len({proposal.candidate for proposal in found}) == len(found)
    assert [proposal.number for proposal in found] == list(range(150))


def all_of(proposer: Evolution[T], objectives: Callable[[T], tuple[float, ...]]) -> list[T]:
    found: list[T] = []
    while True:
        try:
            proposal = proposer.ask()
        except SpaceExhausted:
            return found
        found.append(proposal.candidate)
        proposer.tell(proposal.number, objectives(proposal.candidate))


def test_first_come_seeds_then_random_then_children() -> None:
    corners = ((0,) * 8, (9,) * 8)
    found = proposals(drive(evolution(Grid(corners=corners), population=10), 40, pending=0))
    assert [proposal.candidate for proposal in found[:2]] == list(corners)
    assert [proposal.origin for proposal in found[:10]] == ["seed"] * 2 + ["random"] * 8
    assert all(proposal.parents and proposal.origin not in ("seed", "random") for proposal in found[10:])
    for proposal in found:
        assert all(parent < proposal.number for parent in proposal.parents)
        assert (len(proposal.parents) == 2) == proposal.origin.startswith("crossover")


def test_without_any_success_everything_is_random() -> None:
    proposer = evolution(population=4)
    for _ in range(12):
        proposal = proposer.ask()
        assert proposal.origin == "random"
        proposer.tell(proposal.number, None)
    assert proposer.population == proposer.frontier == ()


def test_failed_and_pending_evaluations_do_not_breed() -> None:
    events = drive(evolution(population=12), 200)
    bred: set[int] = set()
    succeeded: set[int] = set()
    for kind, content in events:
        if kind == "propose":
            assert set(content.parents) <= succeeded
            bred |= set(content.parents)
        elif content[1] is not None:
            succeeded.add(content[0])
    assert len(bred) > 20


def test_parents_are_recent_or_on_the_frontier() -> None:
    proposer = evolution(population=10)
    told: dict[int, tuple[float, ...]] = {}
    old_frontier_bred = False
    for _ in range(300):
        proposal = proposer.ask()
        recent = set(list(told)[-10:])
        mask = pareto.nondominated(list(told.values()))
        frontier = {number for number, keep in zip(told, mask, strict=True) if keep}
        assert set(proposer.population) == recent
        assert proposer.frontier == tuple(number for number in told if number in frontier)
        assert set(proposal.parents) <= recent | frontier
        old_frontier_bred |= bool(set(proposal.parents) & (frontier - recent))
        result = scores(proposal.candidate)
        told[proposal.number] = result
        proposer.tell(proposal.number, result)
    assert old_frontier_bred


def test_tournaments_prefer_the_frontier() -> None:
    chosen = dict.fromkeys((1, 8), 0)
    for size in chosen:
        proposer = evolution(Grid(length=12), population=30, tournament=size, crossover=0)
        for _ in range(30):
            proposal = proposer.ask()
            proposer.tell(proposal.number, scores(proposal.candidate))
        frontier = set(proposer.frontier)
        chosen[size] = sum(proposer.ask().parents[0] in frontier for _ in range(60))
    assert chosen[8] > 2 * chosen[1]


def test_crossover_and_second_mutation_probabilities() -> None:
    plain = proposals(drive(evolution(crossover=0, second_mutation=0), 100))
    assert {proposal.origin for proposal in plain[16:]} == {"up", "down"}
    full = proposals(drive(evolution(crossover=1, second_mutation=1), 100))
    assert all(len(proposal.origin.split("+")) == 3 and len(proposal.parents) == 2 for proposal in full[16:])


def hypervolume_of(found: list[Point]) -> float:
    return pareto.hypervolume([scores(point) for point in found], (2.0, 2.0))


@pytest.mark.parametrize("objectives", [scores, lambda x: (*scores(x), float(max(x)))], ids=["two", "three"])
def test_beats_random_search(objectives: Callable[[Point], tuple[float, ...]]) -> None:
    space, wins = Grid(), 0
    for seed in range(6):
        proposer, rng = evolution(space, seed=seed), np.random.default_rng([seed, 1])
        found = []
        for _ in range(200):
            proposal = proposer.ask()
            found.append(proposal.candidate)
            proposer.tell(proposal.number, objectives(proposal.candidate))
        wins += hypervolume_of(found) > hypervolume_of([space.sample(rng) for _ in range(200)]) + 0.1
    assert wins == 6


def test_one_objective_is_plain_minimization() -> None:
    proposer = evolution()
    best = [np.inf]
    for _ in range(300):
        proposal = proposer.ask()
        best.append(min(best[-1], float(sum(proposal.candidate))))
        proposer.tell(proposal.number, (float(sum(proposal.candidate)),))
    assert best[-1] <= 3


def test_thousand_evaluations_with_a_frontier_of_equals() -> None:
    """Every score the same: the largest frontier there can be, and the slowest to rank."""
    proposer = evolution(Grid(length=10))
    for _ in range(1000):
        proposal = proposer.ask()
        proposer.tell(proposal.number, (1.0, 1.0))
    assert len(proposer.frontier) == 1000


@pytest.mark.parametrize(
    "wrong",
    [{"population": 0}, {"tournament": 0}, {"crossover": 1.5}, {"second_mutation": -0.1}, {"colour": 1}],
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EvolutionSettings.model_validate(wrong)


def test_architectures_evolve() -> None:
    space = ArchitectureSpace(
        SpaceSettings(operators=("a", "m", "f"), min_depth=2, max_depth=8, widths=(64, 96, 128)), 256
    )
    proposer = Evolution(space, EvolutionSettings(population=16), seed=0)
    origins = set()
    for _ in range(150):
        proposal = proposer.ask()
        assert space.contains(proposal.candidate) is None
        origins |= set(proposal.origin.split("+"))
        features = space.features(proposal.candidate)
        proposer.tell(
            proposal.number, (features["log10_params"], -features["depth"] - features["alternation"])
        )
    assert {"seed", "random", "crossover", "replace", "insert", "shape", "ratio"} <= origins
    assert len(proposer.frontier) > 3


def test_tiny_space_of_architectures_is_exhausted() -> None:
    settings = SpaceSettings(
        operators=("a",),
        widths=(64, 128),
        min_depth=1,
        max_depth=1,
        genes={"a": {"head_dim": [32], "qk_norm": ["none"]}},
    )
    proposer = Evolution(ArchitectureSpace(settings, 256), EvolutionSettings(population=3), seed=0)
    found = all_of(proposer, lambda architecture: (0.0, 1.0))
    assert len({architecture.digest() for architecture in found}) == len(found) == 12


def test_parents_are_ranked_among_all_that_breed() -> None:
    """Fronts and crowding distances are those of all breeding members at once, equal scores included."""
    searcher, rng = evolution(population=12), np.random.default_rng(0)
    for _ in range(80):
        searcher.tell(searcher.ask().number, tuple(rng.integers(0, 12, 2).astype(float).tolist()))
        members = sorted({*searcher.population, *searcher.frontier})
        points = np.array([searcher._scores[member] for member in members])
        fronts, crowding = pareto.ranks(points), np.zeros(len(members))
        for front in set(fronts.tolist()):
            crowding[fronts == front] = pareto.crowding(points[fronts == front])
        assert list(searcher._parents) == members
        assert list(searcher._parents.values()) == list(
            zip(fronts.tolist(), (-crowding).tolist(), strict=True)
        )
