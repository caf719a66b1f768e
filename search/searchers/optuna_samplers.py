"""Any of Optuna's samplers as a proposer, on spaces that can be written in whole numbers."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import optuna
from numpy.random import Generator
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.trial import TrialState, create_trial

from search.searchers.contract import Proposal, Searcher
from search.spaces.encoding import Dimension, EncodedSpace

T = TypeVar("T")

SUGGESTIONS = 30
"""How many suggestions may be no member, or known, before the last one's neighbours are tried instead."""
NEIGHBOURS = 100


class OptunaProposer(Searcher[T]):
    """The space's seeds, random members until the first score, and then what the sampler suggests; a Proposer[T].

    sampler: makes one from a seed: each proposal has a fresh one, which knows the scores in the order of `tell` and nothing else. Who
    waits for an evaluation is unknown to it.
    """

    def __init__(
        self, space: EncodedSpace[T], sampler: Callable[[int], BaseSampler], *, name: str, seed: int
    ) -> None:
        super().__init__(space, seed=seed)
        self._encoded, self._sampler, self._name = space, sampler, name
        self._seeds = tuple(space.seeds())
        self._distributions = {key: _distribution(dimension) for key, dimension in space.dimensions.items()}
        self._study: optuna.Study | None = None

    def _propose(self, rng: Generator) -> Proposal[T]:
        return self._seeded(self._seeds) or self._suggested(rng) or self._random_or_exhausted(rng)

    def _suggested(self, rng: Generator) -> Proposal[T] | None:
        """A suggestion that is new, or a new neighbour of one; None where there is neither."""
        found = None
        for _ in range(SUGGESTIONS if self._study else 0):
            found = self._encoded.decode(self._suggest(int(rng.integers(2**31)))) or found
            if found is not None and not self._known(found):
                return Proposal(self._next, found, (), self._name)
        for _ in range(NEIGHBOURS if found is not None else 0):
            mutated = self._space.mutate(found, rng) if found is not None else None
            if mutated is not None and not self._known(mutated[0]):
                return Proposal(self._next, mutated[0], (), f"{self._name}+{mutated[1]}")
        return None

    def _suggest(self, seed: int) -> dict[str, int]:
        study = self._study
        assert study is not None  # noqa: S101 - called with one only
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study.sampler = sampler = self._sampler(seed)
            if isinstance(
                sampler, BaseGASampler
            ):  # Optuna orders parents otherwise when it asks for them a second time
                sampler.get_parent_population(study, len(self._scores) // (sampler.population_size or 1))
            trial = study.ask(self._distributions)
            study.tell(trial, state=TrialState.FAIL)  # the proposal's own trial is added when it has scores
        return {key: int(value) for key, value in trial.params.items()}

    def _learn(self, number: int) -> None:
        again = number in self._twice
        if again:  # a trial that ended cannot be changed
            self._study = None
        for place, told in enumerate(self._scores):
            if again or told == number:
                self._add(place, told)

    def _add(self, place: int, number: int) -> None:
        scores = self._scores[number]
        if self._study is None:
            self._study = _quiet_study(len(scores))
        sampler, attributes = self._sampler(0), {}
        if isinstance(
            sampler, BaseGASampler
        ):  # generations are counted in scores told, as one process that waits for each would
            attributes[sampler._get_generation_key()] = place // (sampler.population_size or 1)
        numbers = dict(self._encoded.encode(self._proposals[number].candidate))
        trial = create_trial(
            params=numbers, distributions=self._distributions, values=scores, system_attrs=attributes
        )
        self._study.add_trial(trial)


def _distribution(dimension: Dimension) -> BaseDistribution:
    return (
        IntDistribution(0, dimension.size - 1)
        if dimension.ordered
        else CategoricalDistribution(range(dimension.size))
    )


def _quiet_study(objectives: int) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study(directions=["minimize"] * objectives)
    finally:
        optuna.logging.set_verbosity(verbosity)
