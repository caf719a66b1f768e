"""Guided search: what it adds to evolution, and where it leaves evolution alone."""

from collections.abc import Callable

import numpy as np
import pytest

from search import pareto
from search.config.searcher import EvolutionSettings
from search.searchers.evolution import Evolution
from search.searchers.guided import SCREENED, Guided
from search.searchers.registry import searcher
from search.spaces.encoding import Dimension, IntegerSpace, Vector

SPACE = IntegerSpace({f"x{number}": Dimension(16) for number in range(8)})
SETTINGS = EvolutionSettings(population=12)


def scores(x: Vector) -> tuple[float, float]:
    """Two distances: to a point near one corner and one near the other."""
    share = np.array(x) / 15
    return float(((share - 0.2) ** 2).sum()), float(((share - 0.7) ** 2).sum())


def test_reaches_more_than_evolution_random_and_nsga2() -> None:
    volumes: dict[str, list[float]] = {}
    for name in ("guided", "evolution", "random", "nsga2"):
        for seed in range(2):
            proposer, points = searcher(name, SPACE, SETTINGS, seed=seed), []
            for _ in range(60):
                proposal = proposer.ask()
                points.append(scores(proposal.candidate))
                proposer.tell(proposal.number, points[-1])
            volumes.setdefault(name, []).append(pareto.hypervolume(points, (2.5, 2.5)))
    others = max(max(values) for name, values in volumes.items() if name != "guided")
    assert min(volumes["guided"]) > others


def plain(guided: Guided[Vector]) -> Evolution[Vector]:
    """Evolution that knows all that guided search does."""
    evolution = Evolution(SPACE, SETTINGS, seed=0)
    for number in range(len(guided._proposals)):
        evolution.restore(guided.proposal(number))
    for number, result in guided._told.items():
        evolution.tell(number, result)
    return evolution


def test_noise_is_left_to_evolution() -> None:
    """Scores that nothing tells: after enough of them, most proposals are those of evolution, one for one."""
    rng, guided, same = np.random.default_rng(0), Guided(SPACE, SETTINGS, seed=0), []
    for number in range(70):
        expected = plain(guided).ask() if number >= 40 else None
        proposal = guided.ask()
        same.append(proposal == expected)
        guided.tell(proposal.number, tuple(rng.random(2).tolist()))
    assert sum(same) > 19


def test_learns_what_fails() -> None:
    """Half of the space fails, and the better half at that: fewer and fewer proposals fall into it."""
    proposer, failed = Guided(SPACE, SETTINGS, seed=0), []
    for _ in range(60):
        proposal = proposer.ask()
        fails = proposal.candidate[0] < 8
        if proposal.origin.startswith(SCREENED):
            failed.append(fails)
        proposer.tell(proposal.number, None if fails else scores(proposal.candidate))
    assert np.mean(failed[-25:]) < 0.3


def test_what_waits_is_not_proposed_again_in_another_guise() -> None:
    """Eight asked at once gain more together than eight that were each asked alone, which crowd where the
    largest gain is.
    """
    proposer = Guided(SPACE, SETTINGS, seed=0)
    for _ in range(40):
        proposal = proposer.ask()
        proposer.tell(proposal.number, scores(proposal.candidate))
    told = list(proposer._told.items())
    waiting = [
        found.candidate for found in (proposer.ask() for _ in range(20)) if found.origin.startswith(SCREENED)
    ][:8]
    alone = []
    for seed in range(20):  # each as the only one asked: the same scores, another seed
        fresh = Guided(SPACE, SETTINGS, seed=100 + seed)
        for earlier in range(40):
            fresh.restore(proposer.proposal(earlier))
        for earlier, result in told:
            fresh.tell(earlier, result)
        found = fresh.ask()
        alone += [found.candidate] if found.origin.startswith(SCREENED) else []
        if len(alone) == 8:
            break
    assert len(alone) == len(waiting) == 8
    before = [result for _, result in told if result is not None]
    volumes = [pareto.hypervolume([*before, *map(scores, found)], (2.5, 2.5)) for found in (waiting, alone)]
    assert volumes[0] > volumes[1]


def test_a_known_objective_needs_no_evaluations() -> None:
    """The second objective is a lottery by the candidate that no feature tells; a table of it makes the
    winners findable.
    """

    def drawn(x: Vector) -> float:
        return float(np.random.default_rng(list(x)).random())

    means = []
    for known in ({1: drawn}, None):
        proposer, found = Guided(SPACE, SETTINGS, seed=0, known=known), []
        for _ in range(40):
            proposal = proposer.ask()
            found.append(drawn(proposal.candidate))
            proposer.tell(proposal.number, (scores(proposal.candidate)[0], found[-1]))
        means.append(np.mean(found[20:]))
    assert means[0] < means[1] - 0.15


WIDE = IntegerSpace({f"x{number}": Dimension(16) for number in range(20)})


def rippled(x: Vector) -> tuple[float, float]:
    """In the manner of DTLZ1: all but the first number are to be even and near the middle, and what is odd
    costs more than distance.
    """
    rest = np.array(x[1:])
    g = 100 * float((rest % 2).sum()) + float(((rest / 15 - 0.5) ** 2).sum())
    return x[0] / 15 * (1 + g), (1 - x[0] / 15) * (1 + g)


@pytest.mark.parametrize(
    ("objectives", "count", "low", "high"), [(scores, 100, 0.6, 1.0), (rippled, 90, 0.0, 0.4)]
)
def test_most_proposals_are_of_the_kind_that_gains(
    objectives: Callable[[Vector], tuple[float, ...]], count: int, low: float, high: float
) -> None:
    """Screened ones where surrogates see what there is to gain; plain ones where they are misled, though they
    predict well on the whole.
    """
    proposer, screened = Guided(WIDE, SETTINGS, seed=0), []
    for _ in range(count):
        proposal = proposer.ask()
        screened.append(proposal.origin.startswith(SCREENED))
        proposer.tell(proposal.number, objectives(proposal.candidate))
    assert low < np.mean(screened[-count // 2 :]) < high


def test_a_resumed_search_goes_on_with_the_same_kinds() -> None:
    proposer = Guided(WIDE, SETTINGS, seed=0)
    for _ in range(60):
        proposal = proposer.ask()
        proposer.tell(proposal.number, rippled(proposal.candidate))
    resumed = Guided(WIDE, SETTINGS, seed=0)
    for number in range(60):
        resumed.restore(proposer.proposal(number))
    for number, result in proposer._told.items():
        resumed.tell(number, result)
    for turn in range(12):
        if turn == 5:  # a second evaluation changes a row that the forecast has already learned from
            for each in (proposer, resumed):
                each.tell_again(7, rippled(proposer.proposal(7).candidate))
        proposal = proposer.ask()
        assert resumed.ask() == proposal
        for each in (proposer, resumed):
            each.tell(proposal.number, rippled(proposal.candidate))
