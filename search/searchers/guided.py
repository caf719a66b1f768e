"""Guided search: evolution whose children are screened by their expected gain in hypervolume."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator

from operators.base.threads import torch_threads
from search import pareto
from search.config.searcher import EvolutionSettings
from search.pareto import Floats
from search.searchers.contract import Proposal
from search.searchers.evolution import Evolution
from search.searchers.expected_gain import Sides, expected_gain, open_boxes, sides_of
from search.searchers.forecast import (
    FEWEST,
    Fit,
    Forecast,
    fit_of,
    fit_uses,
    forecast,
    next_fit,
    standard_of,
    used,
)
from search.searchers.surrogate import conditioned, first_kernel
from search.spaces.contract import Space, feature_rows

T = TypeVar("T")
Known = Mapping[int, Callable[[T], float]]

CHILDREN, ROUNDS = 200, 8
"""Children screened for one proposal, and the rounds that they are made in.

Parents of the first round are evaluated candidates. Parents of later rounds are the best children so far,
so that children climb towards the largest gain.
"""
ELITE = 6
"""Number of the best children so far that are parents of the next round. The fewer, the faster the climb."""
CROSSED, FRESH = 0.4, 0.05
"""Probability that a child has two parents, and probability that it is a random member instead."""
PLAIN = 10
"""In so many proposals one is plain and one is screened, whatever either gained: both rates stay known."""
RECENT = 100
"""Number of the latest evaluations that the rates of gain of both kinds of proposal are estimated from."""
SCREENED = "screened"
"""The beginning of a screened proposal's origin."""
LEAST_SKILL = 0.1
"""Share of the variance that forecasts must explain (`Forecast.skill`) before they screen children."""
REMEMBERED = 300
"""Number of the latest evaluations that the probability of failing is learned from."""


class Child(NamedTuple, Generic[T]):
    """A candidate that may be proposed.

    candidate: the candidate.
    parents: numbers of the proposals that it was made from.
    steps: how it was made, as in a proposal's origin.
    """

    candidate: T
    parents: tuple[int, ...]
    steps: tuple[str, ...]


class Guided(Evolution[T]):
    """Evolution with screened children; a Proposer[T]. It is steady-state and asynchronous.

    The first `population` proposals are the space's seeds and random members. Then surrogates forecast the
    objectives of hundreds of children. The proposal is the child with the largest expected gain in
    hypervolume times its probability to succeed. Proposals that wait for their evaluation count with their
    forecast.

    Plain evolution continues while the surrogates' leave-one-out predictions have no skill. Even skilled
    surrogates can mislead: the children that look best are often those whose forecast is most wrong. Hence
    screened and plain proposals share the search by their recent gains.

    known: objective's number -> a function that predicts it beforehand, such as a latency from a table. The
        surrogate then learns only the difference.
    """

    def __init__(
        self, space: Space[T], settings: EvolutionSettings, *, seed: int, known: Known[T] | None = None
    ) -> None:
        super().__init__(space, settings, seed=seed)
        self._predictors: Known[T] = known or {}
        self._rows: dict[int, Floats] = {}  # features, then values of objectives known beforehand
        self._fit: Fit | None = None
        self._fit_next = FEWEST
        self._latest: Forecast | None = None  # of `_fit`
        # Whether each proposal was on the frontier when it was told, by order of tell.
        self._gained: dict[int, bool] = {}
        # Scores and numbers of evaluations at the time when the last fit was due.
        self._fit_to: list[tuple[tuple[float, ...], float]] = []

    def _learn(self, number: int) -> None:
        super()._learn(number)
        self._gained.setdefault(number, number in self._frontier)
        if len(self._scores) >= self._fit_next:
            # Only the data are kept here. `_forecast` makes the fit, so that a resumed run makes only the
            # last.
            self._fit = self._latest = None
            self._fit_to = list(zip(self._scores.values(), self._times(self._scores), strict=True))
            self._fit_next = next_fit(len(self._scores))

    def _propose(self, rng: Generator) -> Proposal[T]:
        begun = self._next >= self._settings.population and len(self._scores) >= FEWEST
        with torch_threads(1):  # on matrices of this size several threads would wait more than they work
            return (self._screened(rng) if begun and self._screens(rng) else None) or super()._propose(rng)

    def _screens(self, rng: Generator) -> bool:
        """Whether to screen the next proposal.

        It is screened with the probability that screened proposals have lately reached the frontier more
        often than plain ones (Thompson sampling of two rates, from Jeffreys priors).
        """
        turn = self._next % PLAIN
        if turn in (PLAIN // 2 - 1, PLAIN - 1):
            return turn != PLAIN - 1
        latest = islice(reversed(self._gained), RECENT)
        told = [number for number in latest if number >= self._settings.population]
        # A generator of its own leaves `rng` as it is: plain proposals are then exactly those of evolution.
        draw, rates = rng.spawn(1)[0], []
        for screened in (True, False):
            gained = [
                self._gained[number]
                for number in told
                if self._proposals[number].origin.startswith(SCREENED) == screened
            ]
            rates.append(draw.beta(0.5 + sum(gained), 0.5 + len(gained) - sum(gained)))
        return bool(rates[0] >= rates[1])

    def _screened(self, rng: Generator) -> Proposal[T] | None:
        """The most promising child; None if the surrogates have no skill or expect no gain."""
        expected = self._forecast()
        if expected.skill < LEAST_SKILL:
            return None
        region, chance = self._open(expected), self._chance()
        best, seen = list[tuple[float, Child[T]]](), set[str]()
        for _ in range(ROUNDS):
            children = self._children(rng, [child for _, child in best], seen)
            if children:
                rows = self._computed([child.candidate for child in children])
                gains = expected_gain(*expected.predict(*self._columns(rows)), region) * chance(rows)
                best = sorted(
                    [*best, *zip(gains.tolist(), children, strict=True)], key=lambda pair: -pair[0]
                )[:ELITE]
        if not best or best[0][0] <= 0:
            return None
        return Proposal(
            self._next, best[0][1].candidate, best[0][1].parents, "+".join((SCREENED, *best[0][1].steps))
        )

    def _forecast(self) -> Forecast:
        numbers = list(self._scores)
        if self._fit is None:
            scores_then, times_then = (np.array(part) for part in zip(*self._fit_to, strict=True))
            active = fit_uses(scores_then)
            data = self._known_rows([numbers[place] for place in active], scores_then[active])
            self._fit = fit_of(active, *data, times_then[active], told=len(scores_then))
        learned = [numbers[place] for place in used(self._fit, len(numbers))]
        scores = np.array([self._scores[number] for number in learned])
        data, times = self._known_rows(learned, scores), self._times(learned)
        self._latest = forecast(self._fit, *data, times, before=self._latest)
        return self._latest

    def _known_rows(self, numbers: Sequence[int], scores: Floats) -> tuple[Floats, Floats, Floats]:
        """Features, scores, and values known beforehand, of proposals with these scores."""
        features, known = self._columns(self._rows_of(numbers))
        return features, scores, known

    def _times(self, numbers: Iterable[int]) -> Floats:
        """Number of evaluations of each of these proposals."""
        return np.array([2.0 if number in self._twice else 1.0 for number in numbers])

    def _open(self, expected: Forecast) -> tuple[Sides, ...]:
        """The region where a candidate would gain, as the sides of its boxes.

        The reference alternates: a near one favours the middle of the frontier, a far one its ends.
        """
        frontier = expected.warped(self._front)
        # A warp keeps the order: the ends of all scores stay their ends, and nothing else decides.
        near, far = pareto.reference_point(frontier), pareto.reference_point(expected.warped(self._ends))
        if self._waiting:
            waiting = self._rows_of(sorted(self._waiting))
            frontier = np.vstack([frontier, expected.predict(*self._columns(waiting))[0]])
        return sides_of(open_boxes(frontier, far if self._next % 2 == 0 else np.minimum(near, far)))

    def _chance(self) -> Callable[[Floats], Floats]:
        """The function of rows that gives the probabilities [n] that their evaluations succeed.

        They are never below 0.05, as the estimate is rough.
        """
        told = list(islice(reversed(self._told), REMEMBERED))[::-1]
        success = np.array([float(number in self._scores) for number in told])
        if success.all():
            return lambda rows: np.ones(len(rows))
        features, _ = self._columns(self._rows_of(told))
        standard = standard_of(features)
        x = standard(features)
        surrogate = conditioned(first_kernel(x.shape[1]), x, success - success.mean())

        def chance(rows: Floats) -> Floats:
            means = surrogate.means(standard(self._columns(rows)[0]))
            return np.asarray(np.clip(means + success.mean(), 0.05, 1))

        return chance

    def _children(self, rng: Generator, elite: Sequence[Child[T]], seen: set[str]) -> list[Child[T]]:
        """New children of one round, at most its share of CHILDREN.

        elite: children that may be parents; empty in the first round.
        seen: keys of all earlier children; the new keys are added.
        """
        children: list[Child[T]] = []
        for _ in range(2 * CHILDREN // ROUNDS):
            child = self._bear(rng, elite)
            key = self._space.key(child.candidate)
            if key not in seen and key not in self._keys:
                seen.add(key)
                children.append(child)
            if len(children) == CHILDREN // ROUNDS:
                break
        return children

    def _bear(self, rng: Generator, elite: Sequence[Child[T]]) -> Child[T]:
        """A child by crossover, by mutations, or by both. Each further mutation is half as likely."""
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
    def _objectives(self) -> int:
        return max(self._predictors, default=-1) + 1

    def _rows_of(self, numbers: Sequence[int]) -> Floats:
        """The rows of proposals, each computed when it is first asked for: most of a long run never are."""
        missing = [number for number in numbers if number not in self._rows]
        if missing:
            rows = self._computed([self._proposals[number].candidate for number in missing])
            self._rows.update(zip(missing, rows, strict=True))
        return np.array([self._rows[number] for number in numbers])

    def _computed(self, candidates: Sequence[T]) -> Floats:
        """Features of candidates, then their objectives that are known beforehand, NaN for the others."""
        known = np.full((len(candidates), self._objectives), np.nan)
        for number, predict in self._predictors.items():
            known[:, number] = [predict(candidate) for candidate in candidates]
        return np.hstack([feature_rows(self._space, candidates), known])

    def _columns(self, rows: Floats) -> tuple[Floats, Floats]:
        """Splits rows into features [n, d] and values of objectives known beforehand [n, m]."""
        features = rows.shape[1] - self._objectives
        known = np.full((len(rows), len(next(iter(self._scores.values())))), np.nan)
        known[:, : self._objectives] = rows[:, features:]
        return rows[:, :features], known
