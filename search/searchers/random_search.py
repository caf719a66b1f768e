"""Random search, the baseline for every other searcher."""

from typing import TypeVar

from numpy.random import Generator

from search.searchers.contract import Proposal, Searcher

T = TypeVar("T")


class RandomSearch(Searcher[T]):
    """Proposes new random members, whatever their scores; a Proposer[T]."""

    def _propose(self, rng: Generator) -> Proposal[T]:
        return self._random_or_exhausted(rng)
