"""Aging evolution with Pareto ranks: a searcher of its own, and the basis of guided search."""

from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from search import pareto
from search.config.searcher import EvolutionSettings
from search.searchers.contract import Proposal, Searcher
from search.spaces.contract import Space

T = TypeVar("T")

BREED_TRIES = 100
"""Attempts to make a new child before a random member is proposed instead."""


class Evolution(Searcher[T]):
    """Aging evolution with Pareto ranks; a Proposer[T]. It is steady-state and asynchronous.

    Only the latest `population` successful evaluations breed (Real et al. 2018, arXiv 1802.01548), and the
    frontier, which does not age. Parents win tournaments by front, then by crowding distance (NSGA-II, Deb et
    al. 2002).
    """

    def __init__(self, space: Space[T], settings: EvolutionSettings, *, seed: int) -> None:
        super().__init__(space, seed=seed)
        self._settings = settings
        # At most half of the first proposals are seeds. The others are random, as known designs are alike.
        self._seeds = tuple(space.seeds())[: (settings.population + 1) // 2]
        self._breeding: tuple[int, ...] = ()  # the keys of `_ranking`
        self._ranking: dict[int, tuple[int, float]] | None = None  # None where scores came since

    @property
    def population(self) -> tuple[int, ...]:
        """Numbers of the latest successful proposals, oldest first."""
        return tuple(islice(reversed(self._scores), self._settings.population))[::-1]

    def _propose(self, rng: Generator) -> Proposal[T]:
        return (self._first(rng) if self._next < self._settings.population else None) or self._child(rng)

    def _learn(self, number: int) -> None:
        if number in self._scores:
            self._ranking = None

    @property
    def _parents(self) -> dict[int, tuple[int, float]]:
        """Member that breeds -> (its front, minus its crowding distance there)."""
        if self._ranking is None:
            self._ranking = self._ranked()
            self._breeding = tuple(self._ranking)
        return self._ranking

    def _ranked(self) -> dict[int, tuple[int, float]]:
        """Member -> (its front, minus its crowding distance there), the lower the better in a tournament.

        Each member that is not on the frontier is dominated by one that is, so that the frontier is front 0
        and only the others need be ranked.
        """
        frontier = np.array(self._frontier, int)
        order = frontier.argsort()
        ranking = _by_distance(frontier[order], self._front[order], 0)
        others = np.array(sorted(set(self.population).difference(self._frontier)), int)
        points = np.array([self._scores[member] for member in others.tolist()])
        fronts = pareto.ranks(points)
        for front in np.unique(fronts):
            ranking |= _by_distance(others[fronts == front], points[fronts == front], int(front) + 1)
        return dict(sorted(ranking.items()))

    def _first(self, rng: Generator) -> Proposal[T] | None:
        return self._seeded(self._seeds) or self._random(rng)

    def _child(self, rng: Generator) -> Proposal[T]:
        """A new child; a random member if there are no parents or they give only known children."""
        for _ in range(BREED_TRIES if self._parents else 0):
            bred = self._bred(rng)
            if bred is not None and not self._known(bred.candidate):
                return bred
        return self._random_or_exhausted(rng)

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
        """The best of a few breeding members drawn at random; the first drawn of equal ones.

        but: the member to leave out, if any.
        """
        parents = self._parents
        members = self._breeding if but is None else [member for member in parents if member != but]
        drawn = rng.choice(len(members), min(self._settings.tournament, len(members)), replace=False)
        return min((members[int(index)] for index in drawn), key=parents.__getitem__)


def _by_distance(
    members: NDArray[np.int64], points: pareto.Floats, front: int
) -> dict[int, tuple[int, float]]:
    """Members of one front -> (the front, minus the crowding distance)."""
    distances = (-pareto.crowding(points)).tolist()
    return {member: (front, distance) for member, distance in zip(members.tolist(), distances, strict=True)}
