"""Who is evaluated a second time, with another seed, because the noise of training leaves its place on the frontier in doubt.

First a few members of the frontier, from which the noise is learned: where trainings repeat exactly, that is all. Then whoever has a part
in the most dominances that are within the noise (`pareto.doubts`): one that would be thrown away though it may be better, or the lucky
one that would throw it away. Its scores become the mean of both evaluations.

At the end of a search, who has a tainted objective is measured once more, without being trained: by then the device may be quiet.
"""

from collections.abc import Sequence

import numpy as np

from search import pareto
from search.config.run import RunConfig
from search.runs.entry import Entry
from search.runs.frontier import (
    LEAST_PAIRS,
    costs,
    frontier_of,
    noise_errors,
    scored,
    trained,
    training_noise,
    unclean,
)

GIVEN_UP = 3
"""Candidates that stayed tainted when they were measured again, before no more are."""


def next_repeat(entries: Sequence[Entry], config: RunConfig) -> int | None:
    """The candidate to evaluate once more now; None where nobody is in doubt, or the share of repeats is used up."""
    objectives = config.parsed_objectives()
    begun = sum(entry.again is not None and entry.again.trains for entry in entries)
    if begun >= int(config.repeats * sum(entry.evaluation is not None for entry in entries)) or not any(
        map(trained, objectives)
    ):
        return None
    candidates = scored(entries, objectives)
    noise = training_noise(candidates, objectives)
    if noise is None:
        pairs = sum(entry.again is not None and _may_have_scores(entry) for entry in entries)
        once = (
            [entry.number for entry in frontier_of(entries, objectives) if entry.again is None]
            if pairs < LEAST_PAIRS
            else []
        )
        return min(once, default=None)
    parts = pareto.doubts(costs(candidates, objectives), noise_errors(candidates, noise))
    parts[[entry.again is not None for entry in candidates]] = 0
    return candidates[int(np.argmax(parts))].number if parts.any() else None


def next_remeasured(entries: Sequence[Entry], config: RunConfig) -> int | None:
    """The candidate to measure once more now, those of the frontier first; None where nobody is tainted who was not evaluated twice.

    None also where that was in vain GIVEN_UP times: the device is not quiet.
    """
    objectives = config.parsed_objectives()
    in_vain = sum(
        entry.again is not None
        and not entry.again.trains
        and entry.again.evaluation is not None
        and bool(unclean(entry, objectives))
        for entry in entries
    )
    tainted = [
        entry.number
        for entry in scored(entries, objectives)
        if entry.again is None and unclean(entry, objectives)
    ]
    if not tainted or in_vain >= GIVEN_UP:
        return None
    best = {entry.number for entry in frontier_of(entries, objectives)}
    return min(tainted, key=lambda number: (number not in best, number))


def _may_have_scores(entry: Entry) -> bool:
    return (
        entry.again is not None
        and entry.again.trains
        and (entry.again.evaluation is None or entry.again.evaluation.status == "ok")
    )
