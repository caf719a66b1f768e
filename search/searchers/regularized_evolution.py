"""Aging evolution for one objective under constraints: the searcher of Nemotron-Flash (arXiv 2511.18890)."""

from typing import TypeVar

from numpy.random import Generator

from search.config.searcher import EvolutionSettings
from search.searchers.contract import Proposal, Searcher
from search.searchers.evolution import BREED_TRIES
from search.spaces.contract import Space

T = TypeVar("T")


class Aging(Searcher[T]):
    """Aging evolution (Real et al. 2018, arXiv 1802.01548), asynchronous; a Proposer[T].

    A parent has the lowest first objective of a few candidates drawn from the latest `population`
    evaluations. Its child differs in one respect. Other objectives are only recorded: a latency target is a
    constraint of the run. A candidate that fails or breaks a constraint ages like the others, but is never a
    parent.
    """

    def __init__(self, space: Space[T], settings: EvolutionSettings, *, seed: int) -> None:
        super().__init__(space, seed=seed)
        self._settings = settings
        # At most half of the first proposals are seeds. The others are random, as known designs are alike.
        self._seeds = tuple(space.seeds())[: (settings.population + 1) // 2]

    def _propose(self, rng: Generator) -> Proposal[T]:
        first = self._seeded(self._seeds)
        if first is not None:
            return first
        for _ in range(BREED_TRIES if self._next >= self._settings.population and self._scores else 0):
            parent = self._parent(rng)
            mutated = self._space.mutate(self._proposals[parent].candidate, rng)
            if mutated is not None and not self._known(mutated[0]):
                return Proposal(self._next, mutated[0], (parent,), mutated[1])
        return self._random_or_exhausted(rng)

    def _parent(self, rng: Generator) -> int:
        """The best of a few of the population, or of all successful proposals if all of these failed.

        Of equal ones it is the first drawn.
        """
        population = list(self._told)[-self._settings.population :]
        drawn = rng.choice(len(population), min(self._settings.tournament, len(population)), replace=False)
        able = [number for index in drawn if (number := population[int(index)]) in self._scores]
        return min(able or self._scores, key=lambda number: self._scores[number][0])
