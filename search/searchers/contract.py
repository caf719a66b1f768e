"""What to evaluate next, by two calls, `ask` and `tell`: the contract of every searcher, and the bookkeeping that they share."""

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
"""How many random members may turn out to be known before the space counts as exhausted."""
SPARSE_TRIES = 10
"""How often no random member may be found at all, where few meet the constraints; each is a thousand tries of the space's own."""


@dataclass(frozen=True)
class Proposal(Generic[T]):
    """A candidate to evaluate. number counts proposals from 0; origin tells how it was made: `seed`, `random`, `crossover+replace` …

    That of one chosen among many children begins with `screened`.
    """

    number: int
    candidate: T
    parents: tuple[int, ...]
    origin: str


class Proposer(Protocol[T]):
    """Proposes candidates from what it was told of earlier ones. All objectives are minimized.

    A proposal depends on the seed, on the number of proposals before it and on the order of `tell`, on nothing else. `ask` may be called
    while earlier proposals wait for their evaluation, and never proposes a key twice.
    """

    def ask(self) -> Proposal[T]:
        """The next proposal. Raises SpaceExhausted when nothing is left, and ConfigError when the space has no member at all."""
        ...

    def tell(self, number: int, objectives: tuple[float, ...] | None) -> None:
        """The scores of a proposal, once; None if it has none. Raises ValueError for what was not proposed or is told already."""
        ...

    def tell_again(self, number: int, objectives: tuple[float, ...]) -> None:
        """The mean scores of a successful proposal that was evaluated a second time, once. Raises ValueError."""
        ...

    def restore(self, proposal: Proposal[T]) -> None:
        """Takes a proposal from a ledger as made, in the place of `ask`. Raises ValueError for a number or candidate that is known."""
        ...


class Searcher(ABC, Generic[T]):
    """A Proposer[T] that remembers; a searcher adds how it makes a proposal, `_propose`, and what it learns of a score, `_learn`."""

    def __init__(self, space: Space[T], *, seed: int) -> None:
        self._space, self._seed = space, seed
        self._proposals: dict[int, Proposal[T]] = {}
        self._keys: set[str] = set()
        self._told: dict[int, tuple[float, ...] | None] = {}  # in the order of tell
        self._scores: dict[int, tuple[float, ...]] = {}  # of the successful ones, in the order of tell
        self._twice: set[int] = set()  # of these, the means of two evaluations
        self._frontier: tuple[int, ...] = ()
        self._next = 0

    @property
    def frontier(self) -> tuple[int, ...]:
        """The successful evaluations that no other one dominates, oldest first."""
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
        self._next = max(self._next, proposal.number + 1)

    def tell(self, number: int, objectives: tuple[float, ...] | None) -> None:
        if number not in self._proposals or number in self._told:
            raise ValueError(
                f"proposal {number}: {'told already' if number in self._told else 'never proposed'}"
            )
        if objectives is not None:
            self._require_scores(number, objectives)
            self._scores[number] = objectives
            self._frontier = self._nondominated(
                (*self._frontier, number)
            )  # who was dominated once stays so until somebody is told again
        self._told[number] = objectives
        self._learn(number)

    def tell_again(self, number: int, objectives: tuple[float, ...]) -> None:
        if number not in self._scores or number in self._twice:
            raise ValueError(
                f"proposal {number}: {'told again already' if number in self._twice else 'has no scores'}"
            )
        self._require_scores(number, objectives)
        self._scores[number] = self._told[number] = objectives
        self._twice.add(number)
        self._frontier = self._nondominated(tuple(self._scores))
        self._learn(number)

    def _require_scores(self, number: int, objectives: tuple[float, ...]) -> None:
        expected = len(next(iter(self._scores.values()), objectives))
        if len(objectives) != expected or not objectives or not all(map(isfinite, objectives)):
            raise ValueError(
                f"proposal {number}: expected {expected or 'some'} finite objectives, got {objectives}"
            )

    @abstractmethod
    def _propose(self, rng: Generator) -> Proposal[T]:
        """A proposal with the number `_next` and a new key. Raises SpaceExhausted."""

    def _learn(self, number: int) -> None:
        """Called when a proposal was told, or told again."""

    def _nondominated(self, members: tuple[int, ...]) -> tuple[int, ...]:
        kept = pareto.nondominated([self._scores[member] for member in members])
        return tuple(member for member, keep in zip(members, kept, strict=True) if keep)

    def _known(self, candidate: T) -> bool:
        return self._space.key(candidate) in self._keys

    def _seeded(self, seeds: Sequence[T]) -> Proposal[T] | None:
        """The next of the seeds, if they are not all proposed and nobody proposed this one before."""
        if self._next >= len(seeds) or self._known(seeds[self._next]):
            return None
        return Proposal(self._next, seeds[self._next], (), "seed")

    def _random(self, rng: Generator) -> Proposal[T] | None:
        """A new random member, or None when many tries give none but known ones."""
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
        """A random member. None where the space finds none, but had some before; raises its ConfigError where nothing was proposed yet."""
        try:
            return self._space.sample(rng)
        except ConfigError:
            if not self._keys:
                raise
            return None

    def _random_or_exhausted(self, rng: Generator) -> Proposal[T]:
        """A new random member. Raises SpaceExhausted."""
        found = self._random(rng)
        if found is None:
            raise SpaceExhausted(
                f"space: many random tries gave no member but the {len(self._keys)} proposed before"
            )
        return found
