"""Aging evolution for one objective under constraints, as Nemotron-Flash (arXiv 2511.18890) used it to find its models."""

from typing import TypeVar

from numpy.random import Generator

from search.config.searcher import EvolutionSettings
from search.searchers.contract import Proposal, Searcher
from search.searchers.evolution import BREED_TRIES
from search.spaces.contract import Space

T = TypeVar("T")


class Aging(Searcher[T]):
    """Real et al. 2018 (arXiv 1802.01548), asynchronous; a Proposer[T].

    A parent has the lowest first objective of a few drawn from the latest `population` evaluations; its child differs in one respect.
    The other objectives are recorded, not searched for: a latency target is a constraint of the run. Who breaks one, or fails, ages
    with the others, and is parent to nobody.
    """

    def __init__(self, space: Space[T], settings: EvolutionSettings, *, seed: int) -> None:
        super().__init__(space, seed=seed)
        self._settings = settings
        self._seeds = tuple(space.seeds())[
            : (settings.population + 1) // 2
        ]  # the others are random: known designs are alike

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
        """The best of a few of the population; where all of them failed, of all that succeeded; of equals the first drawn."""
        population = list(self._told)[-self._settings.population :]
        drawn = rng.choice(len(population), min(self._settings.tournament, len(population)), replace=False)
        able = [number for index in drawn if (number := population[int(index)]) in self._scores]
        return min(able or self._scores, key=lambda number: self._scores[number][0])
