"""What every searcher promises: repeatable from the seed and the order of `tell`, resumable, never twice the
same.
"""

from typing import Any

import numpy as np
import pytest

from operators.base.errors import ConfigError, SpaceExhausted
from search.config.run import parse
from search.config.searcher import NAMES, EvolutionSettings
from search.config.space import SpaceSettings
from search.searchers import optuna_samplers
from search.searchers.contract import Proposal, Proposer
from search.searchers.registry import searcher
from search.spaces.encoding import ArchitectureEncoding, Dimension, IntegerSpace
from search.spaces.free import ArchitectureSpace
from tests.helpers.driven_searcher import Event
from tests.helpers.driven_searcher import drive as drive_scored

pytestmark = pytest.mark.slow

BOX = IntegerSpace(
    {**{f"x{number}": Dimension(6) for number in range(4)}, "kind": Dimension(3, ordered=False)}
)
ARCHITECTURES = ArchitectureSpace(
    SpaceSettings(operators=("a", "m", "f"), min_depth=2, max_depth=6, widths=(64, 96, 128)), 256
)
SPACES: dict[str, Any] = {"box": BOX, "architectures": ARCHITECTURES}
SETTINGS = EvolutionSettings(population=10)

EVERY = NAMES


def made(name: str, space: str = "box", *, seed: int = 0) -> Proposer[Any]:
    return searcher(name, SPACES[space], SETTINGS, seed=seed)


def scores(space: Any, member: Any) -> tuple[float, float]:
    values = np.array(list(space.features(member).values()))
    return float(values.sum()), float(((values - 1) ** 2).sum())


def drive(proposer: Proposer[Any], count: int, space: str = "box", *, pending: int = 3) -> list[Event]:
    return drive_scored(
        proposer, count, pending=pending, seed=1, score=lambda candidate: scores(SPACES[space], candidate)
    )


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", EVERY)
def test_resumed_goes_on_as_if_never_stopped(name: str, space: str) -> None:
    count = {"gp": 13, "tpe": 20}.get(name, 30)  # both take long, and have begun to model after ten
    events = drive(made(name, space), count, space)
    proposed = [content for kind, content in events if kind == "propose"]
    assert [proposal.number for proposal in proposed] == list(range(count))
    assert len({SPACES[space].key(proposal.candidate) for proposal in proposed}) == count
    for stop in (1, 11, count - 1):
        cut = [index for index, (kind, _) in enumerate(events) if kind == "propose"][stop]
        in_turn, proposals_first = made(name, space), made(name, space)
        for kind, content in events[:cut]:
            if kind == "propose":
                in_turn.restore(content)
                proposals_first.restore(content)
            else:
                in_turn.tell(*content)
        for kind, content in events[:cut]:
            if kind == "tell":
                proposals_first.tell(*content)
        assert in_turn.ask() == proposals_first.ask() == events[cut][1]


@pytest.mark.parametrize("name", EVERY)
def test_another_seed_proposes_others(name: str) -> None:
    first, other = (drive(made(name, seed=seed), 12) for seed in (0, 1))
    assert first != other


@pytest.mark.parametrize("name", EVERY)
def test_a_small_space_is_proposed_whole_and_then_exhausted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna_samplers, "SUGGESTIONS", 3)  # of which most are known here, and gp takes long
    space = IntegerSpace({"x": Dimension(5), "kind": Dimension(3, ordered=False)})
    proposer = searcher(name, space, EvolutionSettings(population=4), seed=0)
    found = set()
    for _ in range(15):
        proposal = proposer.ask()
        found.add(proposal.candidate)
        proposer.tell(proposal.number, scores(space, proposal.candidate))
    assert len(found) == 15
    with pytest.raises(SpaceExhausted, match="proposed before"):
        proposer.ask()


@pytest.mark.parametrize("name", EVERY)
def test_failures_alone_stop_nobody(name: str) -> None:
    proposer, candidates = made(name), []
    for _ in range(20):
        proposal = proposer.ask()
        candidates.append(proposal.candidate)
        proposer.tell(proposal.number, None)
    assert len(set(candidates)) == 20
    assert proposer.frontier == ()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("objectives", [1, 3])
def test_one_objective_and_three(name: str, objectives: int) -> None:
    proposer, results = made(name), {}
    for _ in range(12):
        proposal = proposer.ask()
        results[proposal.number] = (*scores(BOX, proposal.candidate), -float(proposal.candidate[0]))[
            :objectives
        ]
        proposer.tell(proposal.number, results[proposal.number])
    assert set(proposer.frontier) == {
        number
        for number, result in results.items()
        if not any(
            other != result and all(a <= b for a, b in zip(other, result, strict=True))
            for other in results.values()
        )
    }


@pytest.mark.parametrize("name", EVERY)
def test_wrong_use_is_refused(name: str) -> None:
    proposer = made(name)
    proposal, other = proposer.ask(), proposer.ask()
    with pytest.raises(ValueError, match="never proposed"):
        proposer.tell(99, (1.0,))
    proposer.tell(proposal.number, (1.0, 2.0))
    with pytest.raises(ValueError, match="told already"):
        proposer.tell(proposal.number, (1.0, 2.0))
    for wrong in ((1.0,), (1.0, float("nan")), (float("inf"), 1.0)):
        with pytest.raises(ValueError, match="expected 2 finite objectives"):
            proposer.tell(other.number, wrong)
    proposer.tell(other.number, None)
    for known in (proposal, Proposal(7, proposal.candidate, (), "random")):
        with pytest.raises(ValueError, match="proposed before"):
            proposer.restore(known)


def test_a_space_that_is_no_numbers_is_refused_where_numbers_are_needed() -> None:
    with pytest.raises(ConfigError, match="tpe needs a space that can be written in whole numbers"):
        searcher("tpe", object(), SETTINGS, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"searcher\.name: expected one of guided, evolution, aging"):
        parse({"searcher": {"name": "annealing"}}, where="run.yaml")


def test_aging_ranks_by_the_first_objective_and_forgets_the_old() -> None:
    """A population that failed or was worse: its best is parent, a better one that is too old is not."""
    settings = EvolutionSettings(population=4, tournament=4)
    proposer = searcher("aging", BOX, settings, seed=0)
    results = [(0.0, 9.0), (5.0, 0.0), None, (3.0, 7.0), (4.0, 0.0)]
    for result in results:
        proposer.tell(proposer.ask().number, result)
    child = proposer.ask()
    assert child.parents == (3,)
    assert sum(a != b for a, b in zip(child.candidate, _candidate(proposer, 3), strict=True)) == 1


def _candidate(proposer: Any, number: int) -> Any:
    return proposer._proposals[number].candidate


def test_architectures_and_numbers_mean_each_other() -> None:
    space = ArchitectureSpace(
        SpaceSettings(norms=(("rmsnorm", "before"), ("rmsnorm", "after")), meta_tokens=(0, 16), max_depth=7),
        256,
    )
    encoding, rng, decoded = ArchitectureEncoding(space), np.random.default_rng(0), 0
    for _ in range(60):
        values = {name: int(rng.integers(dimension.size)) for name, dimension in encoding.dimensions.items()}
        member = encoding.decode(values)
        if member is None:
            continue
        decoded += 1
        assert space.contains(member) is None
        assert member.width == space.choices.widths[values["width"]]
        assert member.depth == 4 + values["depth"]
        assert [layer.operator for layer in member.layers] == [
            space.choices.operators[values[f"layer{place}"]] for place in range(member.depth)
        ]
        assert encoding.decode(encoding.encode(member)) == member
    assert decoded > 30
    for seed in encoding.seeds():
        assert space.key(encoding.decode(encoding.encode(seed))) == space.key(
            seed
        )  # which a name is no part of


class Sparse(IntegerSpace):
    """A space that finds no random member every other time, as if few architectures met the constraints."""

    def sample(self, rng: np.random.Generator) -> Any:
        if rng.random() < 0.5:
            raise ConfigError("none of 1000")
        return super().sample(rng)


@pytest.mark.parametrize("name", ["guided", "evolution", "aging", "random"])
def test_a_space_that_finds_random_members_rarely_stops_nobody(name: str) -> None:
    space = Sparse(BOX.dimensions)
    proposer = searcher(name, space, SETTINGS, seed=3)
    found = []
    while len(found) < 60:
        try:
            found.append(proposer.ask())
        except ConfigError:
            assert not found  # that the space may have none at all is said before anything was proposed
            proposer = searcher(name, space, SETTINGS, seed=4)
            continue
        proposer.tell(found[-1].number, scores(space, found[-1].candidate)[: 1 if name == "aging" else 2])
    assert len({proposal.candidate for proposal in found}) == 60
