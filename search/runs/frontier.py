"""Which candidates of a run are not dominated, and how far the run has come."""

from collections.abc import Sequence
from dataclasses import dataclass

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

LEAST_PAIRS = 3
"""Candidates that must have been evaluated twice before the noise of training is known."""


def scored(entries: Sequence[Entry], objectives: Sequence[Objective]) -> list[Entry]:
    """Those that have every objective, in the order of their evaluation; a constraint that was broken excludes."""
    return [
        entry
        for entry in finished(entries)
        if entry.evaluation is not None
        and entry.evaluation.status == "ok"
        and all(objective.metric in entry.evaluation.metrics for objective in objectives)
    ]


def costs(entries: Sequence[Entry], objectives: Sequence[Objective]) -> np.ndarray:
    """Objectives of scored entries, all to be minimized: [n, m]."""
    rows = [
        [objective.cost(entry.evaluation.metrics) for objective in objectives]
        for entry in entries
        if entry.evaluation
    ]
    return np.array(rows, dtype=float).reshape(len(rows), len(objectives))


def training_noise(entries: Sequence[Entry], objectives: Sequence[Objective]) -> np.ndarray | None:
    """The standard deviation of one evaluation's objectives that come of training: [m], 0 for others.

    From scored entries that were evaluated twice; None where they are fewer than LEAST_PAIRS.
    """
    twice = [
        entry.evaluation.standard_errors for entry in entries if entry.evaluation and trained_twice(entry)
    ]
    if len(twice) < LEAST_PAIRS:
        return None
    rows = [[found.get(each.metric, 0.0) if trained(each) else 0.0 for each in objectives] for found in twice]
    return np.asarray(
        np.sqrt(2 * np.square(rows).mean(0))
    )  # of two values the standard error of the mean is half their difference


def trained(objective: Objective) -> bool:
    """Whether another seed gives another value."""
    return needs_training(objective.metric)


def noise_errors(entries: Sequence[Entry], noise: np.ndarray) -> np.ndarray:
    """Standard errors of the objectives of scored entries: [n, m]. noise: of one evaluation, [m]."""
    return np.array([noise / np.sqrt(2 if trained_twice(entry) else 1) for entry in entries])


def trained_twice(entry: Entry) -> bool:
    """Whether its scores are means of two trainings; who was only measured again has none of a second one."""
    return entry.evaluation is not None and any(
        base_of(metric) in {**PROXY_METRICS, **TASK_METRICS} for metric in entry.evaluation.standard_errors
    )


def unclean(entry: Entry, objectives: Sequence[Objective]) -> dict[str, str]:
    """The objectives of a scored entry whose figures should not be trusted, with the reason."""
    tainted = entry.tainted()
    return {each.metric: tainted[each.metric] for each in objectives if each.metric in tainted}


def errors(entries: Sequence[Entry], objectives: Sequence[Objective]) -> np.ndarray:
    """How far each of `costs` may be off, by measurement or by the seed of the training: [n, m]. What is computed is exact.

    Infinite for a tainted figure: nothing is known of it.
    """
    rows = []
    for entry in entries:
        if entry.evaluation:
            known, tainted = entry.evaluation.errors(), entry.tainted()
            rows.append(
                [
                    np.inf
                    if each.metric in tainted
                    else known.get(each.metric, 0.0) * abs(each.cost(entry.evaluation.metrics))
                    for each in objectives
                ]
            )
    measured = np.array(rows, dtype=float).reshape(len(rows), len(objectives))
    noise = training_noise(entries, objectives)
    return measured if noise is None else measured + noise_errors(entries, noise)


def frontier_of(
    entries: Sequence[Entry], objectives: Sequence[Objective], where: Sequence[Constraint] = ()
) -> list[Entry]:
    """The scored entries that no other dominates, sorted by the first objective. A difference within the errors dominates nothing.

    where: only entries that meet all of these are compared. The errors come from all entries, which know the noise of training best.
    """
    candidates = scored(entries, objectives)
    points, off = costs(candidates, objectives), errors(candidates, objectives)
    chosen = [
        index
        for index, entry in enumerate(candidates)
        if entry.evaluation and qualifies(entry.evaluation.metrics, where)
    ]
    candidates, points, off = [candidates[index] for index in chosen], points[chosen], off[chosen]
    kept = np.flatnonzero(pareto.nondominated(points, off))
    return [candidates[index] for index in sorted(kept, key=lambda index: tuple(points[index]))]


@dataclass(frozen=True)
class Gain:
    """Hypervolume of a run's frontier beside that of its first candidates alone, under one common reference point."""

    initial: float
    final: float


def hypervolume_gain(entries: Sequence[Entry], objectives: Sequence[Objective], *, first: int) -> Gain | None:
    """Volumes after scaling every objective to [0, 1] over all scored candidates, with the reference at 1.1; None before any score.

    A candidate with a tainted objective adds nothing.

    first: how many proposals are the first ones, as an evolution's population.
    """
    candidates = _clean(entries, objectives)
    if not candidates:
        return None
    unit, reference = _unit(costs(candidates, objectives))
    initial = np.array([entry.number < first for entry in candidates])
    return Gain(
        initial=pareto.hypervolume(unit[initial], reference), final=pareto.hypervolume(unit, reference)
    )


def hypervolume_course(
    entries: Sequence[Entry], objectives: Sequence[Objective], *, steps: int
) -> list[float]:
    """How the hypervolume grew, scaled as by `hypervolume_gain`: at most `steps` values after equal numbers of scored candidates."""
    candidates = _clean(entries, objectives)
    if not candidates:
        return []
    unit, reference = _unit(costs(candidates, objectives))
    counts = np.unique(np.linspace(1, len(unit), min(steps, len(unit))).round().astype(int))
    return [pareto.hypervolume(unit[:count], reference) for count in counts]


def _clean(entries: Sequence[Entry], objectives: Sequence[Objective]) -> list[Entry]:
    return [entry for entry in scored(entries, objectives) if not unclean(entry, objectives)]


def _unit(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [n, m] scaled to [0, 1] in each objective, and the reference [m] at 1.1."""
    low, high = points.min(0), points.max(0)
    return (points - low) / np.where(high > low, high - low, 1.0), np.full(points.shape[1], 1.1)
