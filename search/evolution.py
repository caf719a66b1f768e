"""Proposers: what to evaluate next, by two calls, `ask` and `tell`. And the first of them, aging evolution."""

from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Generic, Protocol, TypeVar

import numpy as np
from numpy.random import Generator
from pydantic import Field

from operators.errors import SpaceExhausted
from operators.value import Value
from search import pareto
from search.space import Space

T = TypeVar("T")

BREED_TRIES = 100
"""How many children may turn out to be known before a random member is proposed instead."""
SAMPLE_TRIES = 500
"""How many random members may turn out to be known before the space counts as exhausted."""


@dataclass(frozen=True)
class Proposal(Generic[T]):
    """A candidate to evaluate. number counts proposals from 0; origin tells how it was made: `seed`, `random`, `crossover+replace` …"""

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

    def restore(self, proposal: Proposal[T]) -> None:
        """Takes a proposal from a ledger as made, in the place of `ask`. Raises ValueError for a number or candidate that is known."""
        ...


class EvolutionSettings(Value):
    """The `evolution` section of a run.

    population: how many proposals come before the first child, and how many of the latest successful evaluations may breed.
    tournament: how many of them compete to be a parent. crossover: probability that a child has two parents.
    second_mutation: probability that a child is mutated twice.
    """

    population: Annotated[int, Field(ge=1)] = 16
    tournament: Annotated[int, Field(ge=1)] = 4
    crossover: Annotated[float, Field(ge=0, le=1)] = 0.3
    second_mutation: Annotated[float, Field(ge=0, le=1)] = 0.2


class Evolution(Generic[T]):
    """Aging evolution with Pareto ranking, steady-state and asynchronous; a Proposer[T].

    Who is older than the latest `population` successful evaluations breeds no more (Real et al. 2018, arXiv 1802.01548), except the
    frontier, which does not age. Parents win tournaments by front and then by crowding distance (NSGA-II, Deb et al. 2002).
    """

    def __init__(self, space: Space[T], settings: EvolutionSettings, *, seed: int) -> None:
        self._space, self._settings, self._seed = space, settings, seed
        self._seeds = tuple(space.seeds())[: settings.population]
        self._proposals: dict[int, Proposal[T]] = {}
        self._keys: set[str] = set()
        self._told: set[int] = set()
        self._scores: dict[int, tuple[float, ...]] = {}  # of the successful ones, in the order of tell
        self._frontier: tuple[int, ...] = ()
        self._parents: dict[int, tuple[int, float]] = {}
        self._next = 0

    @property
    def population(self) -> tuple[int, ...]:
        """The latest successful evaluations, oldest first."""
        return tuple(self._scores)[-self._settings.population :]

    @property
    def frontier(self) -> tuple[int, ...]:
        """The successful evaluations that no other one dominates, oldest first."""
        return self._frontier

    def ask(self) -> Proposal[T]:
        rng = np.random.default_rng([self._seed, self._next])
        proposal = (self._first(rng) if self._next < self._settings.population else None) or self._child(rng)
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
            raise ValueError(f"proposal {number}: {'told already' if number in self._told else 'never proposed'}")
        if objectives is not None:
            expected = len(next(iter(self._scores.values()), objectives))
            if len(objectives) != expected or not objectives or not all(map(isfinite, objectives)):
                raise ValueError(f"proposal {number}: expected {expected or 'some'} finite objectives, got {objectives}")
            self._scores[number] = objectives
            self._frontier = self._frontier_with(number)
            self._parents = self._ranked(sorted({*self.population, *self._frontier}))
        self._told.add(number)

    def _frontier_with(self, number: int) -> tuple[int, ...]:
        """Only the frontier so far is compared: who was dominated once stays dominated."""
        members = (*self._frontier, number)
        kept = pareto.nondominated([self._scores[member] for member in members])
        return tuple(member for member, keep in zip(members, kept, strict=True) if keep)

    def _ranked(self, members: list[int]) -> dict[int, tuple[int, float]]:
        """Member -> what a tournament compares: its front, and its crowding distance there, negative so that less is better."""
        points = np.array([self._scores[member] for member in members])
        fronts, distances = pareto.ranks(points), np.zeros(len(members))
        for front in np.unique(fronts):
            distances[fronts == front] = pareto.crowding(points[fronts == front])
        return {member: (int(front), -float(distance)) for member, front, distance in zip(members, fronts, distances, strict=True)}

    def _first(self, rng: Generator) -> Proposal[T] | None:
        if self._next < len(self._seeds) and self._space.key(self._seeds[self._next]) not in self._keys:
            return Proposal(self._next, self._seeds[self._next], (), "seed")
        return self._random(rng)

    def _random(self, rng: Generator) -> Proposal[T] | None:
        for _ in range(SAMPLE_TRIES):
            candidate = self._space.sample(rng)
            if self._space.key(candidate) not in self._keys:
                return Proposal(self._next, candidate, (), "random")
        return None

    def _child(self, rng: Generator) -> Proposal[T]:
        """A new child of the fittest; where they give only known ones, or there are none, a random member."""
        for _ in range(BREED_TRIES if self._parents else 0):
            bred = self._bred(rng)
            if bred is not None and self._space.key(bred.candidate) not in self._keys:
                return bred
        found = self._random(rng)
        if found is None:
            raise SpaceExhausted(f"space: {SAMPLE_TRIES} random members are all among the {len(self._keys)} proposed before")
        return found

    def _bred(self, rng: Generator) -> Proposal[T] | None:
        first = self._tournament(rng, but=None)
        parents: tuple[int, ...] = (first,)
        candidate, origin = self._proposals[first].candidate, []
        if len(self._parents) > 1 and rng.random() < self._settings.crossover:
            second = self._tournament(rng, but=first)
            crossed = self._space.crossover(candidate, self._proposals[second].candidate, rng)
            if crossed is None:
                return None
            parents, candidate, origin = (first, second), crossed, ["crossover"]
        for _ in range(2 if rng.random() < self._settings.second_mutation else 1):
            mutated = self._space.mutate(candidate, rng)
            if mutated is None:
                return None
            candidate = mutated[0]
            origin.append(mutated[1])
        return Proposal(self._next, candidate, parents, "+".join(origin))

    def _tournament(self, rng: Generator, *, but: int | None) -> int:
        """The best of a few breeding members drawn at random, `but` not among them; of equals the first drawn."""
        members = [member for member in self._parents if member != but]
        drawn = rng.choice(len(members), min(self._settings.tournament, len(members)), replace=False)
        return min((members[int(index)] for index in drawn), key=lambda member: self._parents[member])
