"""Guided search: evolution whose children are screened by what they are expected to add to the frontier."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.random import Generator

from operators.base.threads import torch_threads
from search import pareto
from search.config.searcher import EvolutionSettings
from search.pareto import Floats
from search.searchers.contract import Proposal
from search.searchers.evolution import Evolution
from search.searchers.expected_gain import expected_gain, open_boxes
from search.searchers.forecast import FEWEST, Fit, Forecast, fit_anew, forecast, next_fit
from search.searchers.surrogate import conditioned, first_kernel
from search.spaces.contract import Space

T = TypeVar("T")
Known = Mapping[int, Callable[[T], float]]

CHILDREN, ROUNDS = 200, 4
"""Children screened for a proposal, in rounds: the parents of the first are evaluated ones, of the others the best children so far."""
ELITE = 20
"""How many of the best children so far are parents."""
CROSSED, FRESH = 0.4, 0.05
"""The probability that a child has two parents, and that it is a random member instead."""
PLAIN = 10
"""Of so many proposals one is plain evolution's and one is screened, whatever either gained."""
RECENT = 100
"""Evaluations from which is learned how often each of the two gains."""
SCREENED = "screened"
"""What the origin of a screened proposal begins with."""
LEAST_SKILL = 0.1
REMEMBERED = 300
"""Evaluations from which the probability of failing is learned."""


@dataclass(frozen=True)
class Child(Generic[T]):
    """One that may be proposed; parents and steps as in a Proposal's origin."""

    candidate: T
    parents: tuple[int, ...]
    steps: tuple[str, ...]


class Guided(Evolution[T]):
    """Steady-state and asynchronous; a Proposer[T].

    The first `population` proposals are the space's seeds and random members. Then surrogates forecast the objectives of hundreds of
    children, and the one with the largest expected gain in hypervolume is proposed, weighed with its probability not to fail. What
    waits for its evaluation counts as what is forecast of it.

    Evolution goes on as if there were no surrogates where their leave-one-out predictions have no skill. They may have it and mislead all
    the same, as those who look best are not drawn at random: they are also those whose forecast is wrong. So screened and plain
    proposals share the search by what each of them has lately gained.

    known: objectives that can be told beforehand, such as a latency from a table: the surrogate then learns what it leaves unexplained.
    """

    def __init__(
        self, space: Space[T], settings: EvolutionSettings, *, seed: int, known: Known[T] | None = None
    ) -> None:
        super().__init__(space, settings, seed=seed)
        self._predictors: Known[T] = known or {}
        self._rows: dict[int, Floats] = {}  # features, then what is known of the objectives
        self._fit: Fit | None = None
        self._fit_next = FEWEST
        self._gained: dict[
            int, bool
        ] = {}  # whether it was on the frontier when it was told, in the order of tell
        self._fit_to: list[
            tuple[tuple[float, ...], float]
        ] = []  # scores and how often they were evaluated, as it was when a fit was due

    def restore(self, proposal: Proposal[T]) -> None:
        super().restore(proposal)
        self._rows[proposal.number] = np.array(self._row(proposal.candidate), float)

    def _learn(self, number: int) -> None:
        super()._learn(number)
        self._gained.setdefault(number, number in self._frontier)
        if (
            len(self._scores) >= self._fit_next
        ):  # made when it is needed, so that a resumed run makes the last one alone
            self._fit, self._fit_to = None, list(zip(self._scores.values(), self._times(), strict=True))
            self._fit_next = next_fit(len(self._scores))

    def _propose(self, rng: Generator) -> Proposal[T]:
        begun = self._next >= self._settings.population and len(self._scores) >= FEWEST
        with torch_threads(
            1
        ):  # more of them wait for each other longer than they work on matrices of this size
            return (self._screened(rng) if begun and self._screens(rng) else None) or super()._propose(rng)

    def _screens(self, rng: Generator) -> bool:
        """Whether the next proposal is to be screened: as probable as that, by the latest evaluations, screened ones get on the frontier
        more often than plain ones do (Thompson sampling of two rates, from Jeffreys priors)."""
        turn = self._next % PLAIN
        if turn in (PLAIN // 2 - 1, PLAIN - 1):
            return turn != PLAIN - 1
        told = [number for number in list(self._gained)[-RECENT:] if number >= self._settings.population]
        draw, rates = rng.spawn(1)[0], []  # of its own, so that plain proposals are those of evolution
        for screened in (True, False):
            gained = [
                self._gained[number]
                for number in told
                if self._proposals[number].origin.startswith(SCREENED) == screened
            ]
            rates.append(draw.beta(0.5 + sum(gained), 0.5 + len(gained) - sum(gained)))
        return bool(rates[0] >= rates[1])

    def _screened(self, rng: Generator) -> Proposal[T] | None:
        """The most promising child; None where the surrogates have no skill or see no gain."""
        expected = self._forecast()
        if expected.skill < LEAST_SKILL:
            return None
        boxes, best, seen = self._open(expected), list[tuple[float, Child[T]]](), set(self._keys)
        for _ in range(ROUNDS):
            children = self._children(rng, [child for _, child in best], seen)
            if children:
                rows = np.array([self._row(child.candidate) for child in children], float)
                gains = expected_gain(*expected.predict(*self._columns(rows)), boxes) * self._chance(rows)
                best = sorted(
                    [*best, *zip(gains.tolist(), children, strict=True)], key=lambda pair: -pair[0]
                )[:ELITE]
        if not best or best[0][0] <= 0:
            return None
        return Proposal(
            self._next, best[0][1].candidate, best[0][1].parents, "+".join((SCREENED, *best[0][1].steps))
        )

    def _forecast(self) -> Forecast:
        rows = np.array([self._rows[number] for number in self._scores])
        scores = np.array(list(self._scores.values()))
        features, known = self._columns(rows)
        if self._fit is None:
            count = len(self._fit_to)
            scores_then, times_then = (
                np.array([score for score, _ in self._fit_to]),
                np.array([times for _, times in self._fit_to]),
            )
            self._fit = fit_anew(features[:count], scores_then, known[:count], times_then)
        return forecast(self._fit, features, scores, known, np.array(self._times()))

    def _times(self) -> list[float]:
        """How often each that has scores was evaluated."""
        return [2.0 if number in self._twice else 1.0 for number in self._scores]

    def _open(self, expected: Forecast) -> Floats:
        """Where there is something to gain. By turns the reference is near, for the frontier's middle, and far, for its ends."""
        scores = expected.warped(np.array(list(self._scores.values())))
        frontier = expected.warped(np.array([self._scores[number] for number in self._frontier]))
        near, far = pareto.reference_point(frontier), pareto.reference_point(scores)
        waiting = [row for number, row in self._rows.items() if number not in self._told]
        if waiting:
            frontier = np.vstack([frontier, expected.predict(*self._columns(np.array(waiting)))[0]])
        return open_boxes(frontier, far if self._next % 2 == 0 else np.minimum(near, far))

    def _chance(self, rows: Floats) -> Floats:
        """The probability that an evaluation succeeds: [n]."""
        told = list(self._told)[-REMEMBERED:]
        success = np.array([float(number in self._scores) for number in told])
        if success.all():
            return np.ones(len(rows))
        known = np.array([self._rows[number] for number in told])[:, : self._features]
        deviation = np.where(known.std(0) > 1e-9, known.std(0), np.inf)
        x, others = (
            (known - known.mean(0)) / deviation,
            (rows[:, : self._features] - known.mean(0)) / deviation,
        )
        found, _ = conditioned(first_kernel(x.shape[1]), x, success - success.mean()).predict(others)
        return np.asarray(np.clip(found + success.mean(), 0.05, 1))

    def _children(self, rng: Generator, elite: Sequence[Child[T]], seen: set[str]) -> list[Child[T]]:
        """New ones, up to a round's share of `CHILDREN`; their keys are added to `seen`."""
        children: list[Child[T]] = []
        for _ in range(2 * CHILDREN // ROUNDS):
            child = self._bear(rng, elite)
            key = self._space.key(child.candidate)
            if key not in seen:
                seen.add(key)
                children.append(child)
            if len(children) == CHILDREN // ROUNDS:
                break
        return children

    def _bear(self, rng: Generator, elite: Sequence[Child[T]]) -> Child[T]:
        """A child by crossover, by one or more mutations, each further one half as likely, or by both."""
        if not elite and rng.random() < FRESH and (fresh := self._sampled(rng)) is not None:
            return Child(fresh, (), ("random",))
        child = self._parent(rng, elite)
        crossed = None
        if rng.random() < CROSSED:
            other = self._parent(rng, elite)
            crossed = self._space.crossover(child.candidate, other.candidate, rng)
            if crossed is not None:
                child = Child(crossed, tuple(dict.fromkeys((*child.parents, *other.parents))), ("crossover",))
        for _ in range(int(rng.geometric(0.5)) - (crossed is not None)):
            mutated = self._space.mutate(child.candidate, rng)
            if mutated is not None:
                child = Child(mutated[0], child.parents, (*child.steps, mutated[1]))
        return child

    def _parent(self, rng: Generator, elite: Sequence[Child[T]]) -> Child[T]:
        if elite:
            return elite[int(rng.integers(len(elite)))]
        number = self._tournament(rng, but=None)
        return Child(self._proposals[number].candidate, (number,), ())

    @property
    def _features(self) -> int:
        return len(next(iter(self._rows.values()))) - self._objectives

    @property
    def _objectives(self) -> int:
        return max(self._predictors, default=-1) + 1

    def _row(self, candidate: T) -> list[float]:
        known = [
            self._predictors[number](candidate) if number in self._predictors else np.nan
            for number in range(self._objectives)
        ]
        return [*self._space.features(candidate).values(), *known]

    def _columns(self, rows: Floats) -> tuple[Floats, Floats]:
        """Features [n, d], and what is known of each objective [n, m]."""
        objectives = len(next(iter(self._scores.values())))
        known = np.full((len(rows), objectives), np.nan)
        known[:, : self._objectives] = rows[:, self._features :]
        return rows[:, : self._features], known
