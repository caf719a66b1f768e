"""The interface of every searcher, with the calls `ask` and `tell`, and the bookkeeping that they share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.random import Generator

from operators.base.errors import ConfigError, SpaceExhausted
from search import pareto
from search.spaces.contract import Space

T = TypeVar("T")

SAMPLE_TRIES = 500
"""Random members that may all be known already before the space counts as exhausted."""
SPARSE_TRIES = 10
"""Times that the space may find no random member before it counts as exhausted.

This happens where few members meet the constraints. Each time the space has made a thousand tries of its own.
"""


@dataclass(frozen=True)
class Proposal(Generic[T]):
    """A candidate to evaluate.

    number: the proposal's number, from 0.
    candidate: the candidate.
    parents: numbers of the proposals that it was made from.
    origin: how it was made, such as `seed`, `random` or `crossover+replace`. It begins with `screened` if the
        candidate was chosen among many children.
    """

    number: int
    candidate: T
    parents: tuple[int, ...]
    origin: str


class Proposer(Protocol[T]):
    """Proposes candidates, given the scores of earlier ones. All objectives are minimized.

    A proposal depends only on the seed, on the number of proposals before it, and on the order of `tell`.
    `ask` may be called while earlier proposals wait for their evaluation. It never proposes a key twice.
    """

    def ask(self) -> Proposal[T]:
        """The next proposal. Raises SpaceExhausted if no new member is left, ConfigError if there is none."""
        ...

    def tell(self, number: int, objectives: tuple[float, ...] | None) -> None:
        """Takes the scores of a proposal, once. Raises ValueError if it was not proposed or has been told.

        objectives: its scores; None if its evaluation failed.
        """
        ...

    def tell_again(self, number: int, objectives: tuple[float, ...]) -> None:
        """Takes the mean scores of a proposal after its second evaluation, once. Raises ValueError."""
        ...

    def restore(self, proposal: Proposal[T]) -> None:
        """Takes over a proposal of an earlier process, from the ledger, instead of `ask`.

        Raises ValueError if its number or candidate is known.
        """
        ...


class Searcher(ABC, Generic[T]):
    """A Proposer[T] that keeps proposals and scores. A subclass adds `_propose`, and `_learn` if it learns.

    space: the space that candidates are taken from.
    seed: seed of all randomness.
    """

    def __init__(self, space: Space[T], *, seed: int) -> None:
        self._space, self._seed = space, seed
        self._proposals: dict[int, Proposal[T]] = {}
        self._keys: set[str] = set()
        self._waiting: set[int] = set()  # numbers of the proposals that are not told yet
        self._told: dict[int, tuple[float, ...] | None] = {}  # None for failures, by order of tell
        self._scores: dict[int, tuple[float, ...]] = {}  # scores of successful proposals, by order of tell
        self._twice: set[int] = set()  # proposals whose scores are means of two evaluations
        self._frontier: tuple[int, ...] = ()
        self._front = np.empty((0, 0))  # the scores of the frontier, in its order
        self._ends = np.empty((0, 0))  # the least and the largest score of each objective [2, m]
        self._next = 0

    @property
    def frontier(self) -> tuple[int, ...]:
        """Numbers of the successful proposals that no other one dominates, oldest first."""
        return self._frontier

    def proposal(self, number: int) -> Proposal[T]:
        """The proposal with that number. Raises KeyError."""
        return self._proposals[number]

    def ask(self) -> Proposal[T]:
        proposal = self._propose(np.random.default_rng([self._seed, self._next]))
        self.restore(proposal)
        return proposal

    def restore(self, proposal: Proposal[T]) -> None:
        key = self._space.key(proposal.candidate)
        if proposal.number in self._proposals or key in self._keys:
            raise ValueError(f"proposal {proposal.number}: its number or its candidate was proposed before")
        self._proposals[proposal.number] = proposal
        self._keys.add(key)
        self._waiting.add(proposal.number)
        self._next = max(self._next, proposal.number + 1)

    def tell(self, number: int, objectives: tuple[float, ...] | None) -> None:
        if number not in self._proposals or number in self._told:
            raise ValueError(
                f"proposal {number}: {'told already' if number in self._told else 'never proposed'}"
            )
        if objectives is not None:
            self._require_scores(number, objectives)
            self._scores[number] = objectives
            self._join(number)
            point = np.array([objectives])
            self._ends = _ends(np.vstack([self._ends.reshape(-1, len(objectives)), point]))
        self._told[number] = objectives
        self._waiting.remove(number)
        self._learn(number)

    def tell_again(self, number: int, objectives: tuple[float, ...]) -> None:
        if number not in self._scores or number in self._twice:
            raise ValueError(
                f"proposal {number}: {'told again already' if number in self._twice else 'has no scores'}"
            )
        self._require_scores(number, objectives)
        self._scores[number] = self._told[number] = objectives
        self._twice.add(number)
        scores = np.array(list(self._scores.values()))
        kept = np.flatnonzero(pareto.nondominated(scores))
        numbers = tuple(self._scores)
        self._frontier, self._front = tuple(numbers[place] for place in kept), scores[kept]
        self._ends = _ends(scores)
        self._learn(number)

    def _require_scores(self, number: int, objectives: tuple[float, ...]) -> None:
        expected = len(next(iter(self._scores.values()), objectives))
        if len(objectives) != expected or not objectives or not all(map(isfinite, objectives)):
            raise ValueError(
                f"proposal {number}: expected {expected or 'some'} finite objectives, got {objectives}"
            )

    @abstractmethod
    def _propose(self, rng: Generator) -> Proposal[T]:
        """Makes a proposal with the number `_next` and a new key. Raises SpaceExhausted."""

    def _learn(self, number: int) -> None:
        """Called after `tell` and `tell_again` with the proposal's number."""

    def _join(self, number: int) -> None:
        """Adds a proposal to the frontier, if no member dominates it, and drops those that it dominates.

        A dominated proposal stays dominated until scores change (`tell_again`), so the others need no look.
        """
        point = np.array(self._scores[number])
        front = self._front.reshape(-1, len(point))
        if ((front <= point).all(1) & (front < point).any(1)).any():
            return
        kept = np.asarray(~((point <= front).all(1) & (point < front).any(1)))
        members = (member for member, keep in zip(self._frontier, kept.tolist(), strict=True) if keep)
        self._frontier, self._front = (*members, number), np.vstack([front[kept], point])

    def _known(self, candidate: T) -> bool:
        return self._space.key(candidate) in self._keys

    def _seeded(self, seeds: Sequence[T]) -> Proposal[T] | None:
        """A proposal of the next seed; None if all were proposed or this one is known."""
        if self._next >= len(seeds) or self._known(seeds[self._next]):
            return None
        return Proposal(self._next, seeds[self._next], (), "seed")

    def _random(self, rng: Generator) -> Proposal[T] | None:
        """A new random member; None if many tries give only known ones."""
        sparse = 0
        for _ in range(SAMPLE_TRIES):
            candidate = self._sampled(rng)
            if candidate is not None and not self._known(candidate):
                return Proposal(self._next, candidate, (), "random")
            sparse += candidate is None
            if sparse == SPARSE_TRIES:
                return None
        return None

    def _sampled(self, rng: Generator) -> T | None:
        """A random member; None if the space finds none now but had some before.

        Raises the space's ConfigError if nothing has been proposed yet: the space then has no member at all.
        """
        try:
            return self._space.sample(rng)
        except ConfigError:
            if not self._keys:
                raise
            return None

    def _random_or_exhausted(self, rng: Generator) -> Proposal[T]:
        """A new random member. Raises SpaceExhausted."""
        proposal = self._random(rng)
        if proposal is None:
            raise SpaceExhausted(
                f"space: many random tries gave no member but the {len(self._keys)} proposed before"
            )
        return proposal


def _ends(scores: pareto.Floats) -> pareto.Floats:
    return np.array([scores.min(0), scores.max(0)])
