"""Optuna's samplers as searchers, on spaces whose members can be encoded as whole numbers."""

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
"""Suggestions that may be known, or no member, before neighbours of the last member are tried instead."""
NEIGHBOURS = 100
"""Neighbours that are tried before a random member is proposed."""


class OptunaProposer(Searcher[T]):
    """Proposes seeds, then random members until the first score, then a sampler's suggestions; a Proposer[T].

    space: a space whose members can be encoded as whole numbers.
    sampler: makes a sampler from a seed. Each proposal uses a fresh one, which knows only the scores by order
        of `tell`. It does not know of proposals that wait for their evaluation.
    name: the sampler's name, as in the origin of proposals.
    seed: seed of all randomness.
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
        """A new suggestion or a new neighbour of one; None if there is neither."""
        member = None
        for _ in range(SUGGESTIONS if self._study else 0):
            member = self._encoded.decode(self._suggest(int(rng.integers(2**31)))) or member
            if member is not None and not self._known(member):
                return Proposal(self._next, member, (), self._name)
        for _ in range(NEIGHBOURS if member is not None else 0):
            mutated = self._space.mutate(member, rng) if member is not None else None
            if mutated is not None and not self._known(mutated[0]):
                return Proposal(self._next, mutated[0], (), f"{self._name}+{mutated[1]}")
        return None

    def _suggest(self, seed: int) -> dict[str, int]:
        study = self._study
        assert study is not None  # noqa: S101 - the caller checks this
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna warns about experimental samplers
            study.sampler = sampler = self._sampler(seed)
            if isinstance(sampler, BaseGASampler):
                # Optuna caches the parents at the first call and orders them differently at the second, so
                # the first call is made here: each proposal then sees the same order.
                sampler.get_parent_population(study, len(self._scores) // (sampler.population_size or 1))
            trial = study.ask(self._distributions)
            study.tell(trial, state=TrialState.FAIL)  # the proposal's own trial is added when it has scores
        return {key: int(value) for key, value in trial.params.items()}

    def _learn(self, number: int) -> None:
        again = number in self._twice
        if again:  # a trial that ended cannot be changed, so the study is made anew
            self._study = None
        for place, scored in enumerate(self._scores):
            if again or scored == number:
                self._add(place, scored)

    def _add(self, place: int, number: int) -> None:
        """Adds a proposal with its scores to the study.

        place: the number of scores before it.
        """
        scores = self._scores[number]
        if self._study is None:
            self._study = _quiet_study(len(scores))
        sampler, attributes = self._sampler(0), {}
        if isinstance(sampler, BaseGASampler):
            # A generation is `population_size` scores, as in a search that waits for each evaluation.
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
