"""Which candidates of a run are not dominated, and how far the run has come."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from search import pareto
from search.objectives import (
    PROXY_METRICS,
    TASK_METRICS,
    Constraint,
    Objective,
    base_of,
    needs_training,
    qualifies,
)
from search.runs.entry import Entry, finished

LEAST_PAIRS = 3  # candidates evaluated twice: of fewer, the deviation is off by more than half


@dataclass(frozen=True)
class Scored:
    """Candidates that have every objective and broke no constraint, and how they compare.

    entries: the candidates, in the order of their evaluation.
    objectives: what they are compared by.
    """

    entries: tuple[Entry, ...]
    objectives: tuple[Objective, ...]

    @cached_property
    def costs(self) -> np.ndarray:
        """Their objectives, all to be minimized -> [n, m]."""
        return self._each(
            [objective.cost(entry.evaluation.metrics) for objective in self.objectives]
            for entry in self.entries
            if entry.evaluation
        )

    @cached_property
    def noise(self) -> np.ndarray | None:
        """The standard deviation of one evaluation's objectives that come of training -> [m], 0 for others.

        It comes from candidates that were evaluated twice; None where they are fewer than LEAST_PAIRS.
        """
        twice = [
            entry.evaluation.standard_errors
            for entry in self.entries
            if entry.evaluation and trained_twice(entry)
        ]
        if len(twice) < LEAST_PAIRS:
            return None
        rows = [
            [pair.get(each.metric, 0.0) if trained(each) else 0.0 for each in self.objectives]
            for pair in twice
        ]
        # The variance of one value is twice that of the mean of two.
        return np.asarray(np.sqrt(2 * np.square(rows).mean(0)))

    @cached_property
    def errors(self) -> np.ndarray:
        """How far each of `costs` may be off, by measurement or by the seed of the training -> [n, m].

        What is computed is exact. A tainted figure may be off by any amount: its error is infinite.
        """
        rows = []
        for entry in self.entries:
            if entry.evaluation:
                known, tainted = entry.evaluation.errors(), entry.tainted()
                rows.append(
                    [
                        np.inf
                        if each.metric in tainted
                        else known.get(each.metric, 0.0) * abs(each.cost(entry.evaluation.metrics))
                        for each in self.objectives
                    ]
                )
        measured = self._each(rows)
        return measured if self.noise is None else measured + noise_errors(self.entries, self.noise)

    def frontier(self, where: Sequence[Constraint] = ()) -> list[Entry]:
        """Those that no other dominates, sorted by the first objective.

        A difference within the errors dominates nothing. The errors come from all entries, which show the
        noise of training best.

        where: only entries that meet all of these are compared.
        """
        chosen = [
            index
            for index, entry in enumerate(self.entries)
            if entry.evaluation and qualifies(entry.evaluation.metrics, where)
        ]
        points = self.costs[chosen]
        kept = np.flatnonzero(pareto.nondominated(points, self.errors[chosen]))
        best = sorted(kept, key=lambda index: tuple(points[index]))
        return [self.entries[chosen[index]] for index in best]

    def _each(self, rows: Iterable[Sequence[float]]) -> np.ndarray:
        """One row for each candidate -> [n, m], also where there is none."""
        return np.array([*rows], dtype=float).reshape(len(self.entries), len(self.objectives))


def scored(entries: Sequence[Entry], objectives: Sequence[Objective]) -> Scored:
    """Those of the entries that have every objective and broke no constraint."""
    complete = (
        entry
        for entry in finished(entries)
        if entry.evaluation is not None
        and entry.evaluation.status == "ok"
        and all(objective.metric in entry.evaluation.metrics for objective in objectives)
    )
    return Scored(tuple(complete), tuple(objectives))


def trained(objective: Objective) -> bool:
    """Whether another seed gives another value."""
    return needs_training(objective.metric)


def noise_errors(entries: Sequence[Entry], noise: np.ndarray) -> np.ndarray:
    """Standard errors of the objectives of scored entries -> [n, m]. noise: of one evaluation [m]."""
    return np.array([noise / np.sqrt(2 if trained_twice(entry) else 1) for entry in entries])


def trained_twice(entry: Entry) -> bool:
    """Whether its scores are means of two trainings, and not only of two measurements."""
    return entry.evaluation is not None and any(
        base_of(metric) in {**PROXY_METRICS, **TASK_METRICS} for metric in entry.evaluation.standard_errors
    )


def unclean(entry: Entry, objectives: Sequence[Objective]) -> dict[str, str]:
    """The objectives of a scored entry whose figures should not be trusted, with the reason."""
    tainted = entry.tainted()
    return {each.metric: tainted[each.metric] for each in objectives if each.metric in tainted}


def relative_errors(entries: Sequence[Entry], metrics: Sequence[str]) -> dict[str, dict[int, float]]:
    """Metric -> candidate -> its error as `errors` has it, over its value; without those that are exact.

    Tainted figures have the error that they would have if they were clean.
    """
    noises = {}
    for name in filter(needs_training, metrics):
        objective = Objective(name, maximize=False)
        noise = scored(entries, [objective]).noise
        noises[name] = 0.0 if noise is None else float(noise[0])
    found: dict[str, dict[int, float]] = {name: {} for name in metrics}
    for entry in entries:
        evaluation = entry.evaluation
        if evaluation is None:
            continue
        known, trainings = evaluation.errors(), 2 if trained_twice(entry) else 1
        for name in metrics:
            value = abs(evaluation.metrics.get(name, 0.0))
            noise = noises.get(name, 0.0) / trainings**0.5
            error = known.get(name, 0.0) + (noise / value if value else 0.0)
            if value and error:
                found[name][entry.number] = error
    return found


def dominators(entries: Sequence[Entry], objectives: Sequence[Objective]) -> dict[int, int | None]:
    """Scored candidate -> the one that dominated it first, in the order of evaluations; None for none.

    The frontier of the first evaluations, with the errors that are known now, is made of those whose
    dominator is not among them.
    """
    candidates = scored(entries, objectives)
    first = pareto.first_dominators(candidates.costs, candidates.errors)
    numbers = [*(entry.number for entry in candidates.entries), None]
    return {entry.number: numbers[row] for entry, row in zip(candidates.entries, first.tolist(), strict=True)}


def by_contribution(
    frontier: Sequence[Entry], entries: Sequence[Entry], objectives: Sequence[Objective]
) -> list[Entry]:
    """The frontier, first the members without which its hypervolume would shrink the most.

    entries: all candidates, over which objectives are scaled as by `hypervolume_gain`.
    """
    if not frontier:
        return []
    everything = scored(entries, objectives)
    unit, reference = _unit(everything.costs)
    places = {entry.number: place for place, entry in enumerate(everything.entries)}
    points = unit[[places[entry.number] for entry in frontier]]
    whole = pareto.hypervolume(points, reference)
    lost = [
        whole - pareto.hypervolume(np.delete(points, place, axis=0), reference)
        for place in range(len(points))
    ]
    return [frontier[place] for place in np.argsort(-np.array(lost), kind="stable")]


def best(entries: Sequence[Entry], objectives: Sequence[Objective], count: int) -> list[Entry]:
    """So many members of the frontier, first those without which its hypervolume would shrink the most."""
    return by_contribution(scored(entries, objectives).frontier(), entries, objectives)[:count]


@dataclass(frozen=True)
class Gain:
    """Hypervolumes under one common reference point.

    initial: of the frontier of the first candidates alone.
    final: of the whole run's frontier.
    """

    initial: float
    final: float


def hypervolume_gain(entries: Sequence[Entry], objectives: Sequence[Objective], *, first: int) -> Gain | None:
    """Volumes of the frontiers, with every objective scaled to [0, 1] over all scored candidates.

    The reference lies at 1.1. A candidate with a tainted objective adds nothing. None before any score.

    first: how many proposals are the first ones, as an evolution's population.
    """
    candidates = _clean(entries, objectives)
    if not candidates.entries:
        return None
    unit, reference = _unit(candidates.costs)
    initial = np.array([entry.number < first for entry in candidates.entries])
    return Gain(
        initial=pareto.hypervolume(unit[initial], reference), final=pareto.hypervolume(unit, reference)
    )


def hypervolume_course(
    entries: Sequence[Entry], objectives: Sequence[Objective], *, steps: int
) -> list[float]:
    """How the hypervolume grew, scaled as by `hypervolume_gain`.

    steps: at most so many values, each after the same number of further candidates.
    """
    (course,) = hypervolume_courses([entries], objectives, steps=steps)
    return [volume for _, volume in course]


def hypervolume_courses(
    runs: Sequence[Sequence[Entry]], objectives: Sequence[Objective], *, steps: int
) -> list[list[tuple[Entry, float]]]:
    """How the hypervolumes of runs with the same objectives grew, on one scale over all their candidates.

    steps: at most so many points for each run, each after the same number of further candidates.

    A point is the last candidate that counts, and the volume with it.
    """
    cleans = [_clean(entries, objectives) for entries in runs]
    together = np.concatenate([clean.costs for clean in cleans]) if cleans else np.empty((0, 0))
    if not len(together):
        return [[] for _ in runs]
    unit, reference = _unit(together)
    courses, begin = [], 0
    for clean in cleans:
        members = clean.entries
        own, begin = unit[begin : begin + len(members)], begin + len(members)
        counts = np.unique(np.linspace(1, len(own), min(steps, len(own))).round().astype(int))
        courses.append([(members[count - 1], pareto.hypervolume(own[:count], reference)) for count in counts])
    return courses


def _clean(entries: Sequence[Entry], objectives: Sequence[Objective]) -> Scored:
    candidates = scored(entries, objectives)
    clean = tuple(entry for entry in candidates.entries if not unclean(entry, objectives))
    return replace(candidates, entries=clean)


def _unit(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points scaled to [0, 1] in each objective [n, m], and the reference at 1.1 [m]."""
    low, high = points.min(0), points.max(0)
    return (points - low) / np.where(high > low, high - low, 1.0), np.full(points.shape[1], 1.1)
