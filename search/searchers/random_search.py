"""Random search: what every other searcher has to beat."""

from typing import TypeVar

from numpy.random import Generator

from search.searchers.contract import Proposal, Searcher

T = TypeVar("T")


class RandomSearch(Searcher[T]):
    """New random members, whatever is told; a Proposer[T]."""

    def _propose(self, rng: Generator) -> Proposal[T]:
        return self._random_or_exhausted(rng)
