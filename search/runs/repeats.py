"""Which candidates are evaluated a second time.

Candidates whose place on the frontier is uncertain are trained again with a second seed, for at most a share
of the evaluations (`RunConfig.repeats`). The first are a few members of the frontier: the noise of training
is learned from them, and where trainings repeat exactly, no more follow. Then follow those with a part in the
most dominances within the noise (`pareto.doubts`): a candidate that would be dropped though it may be better,
or the lucky one that would displace it. The scores become the means of both evaluations.

At the end of a search a candidate with a tainted objective is measured again, without being trained: by then
the device may be quiet.
"""

from collections.abc import Sequence

import numpy as np

from search import pareto
from search.objectives import Objective
from search.runs.entry import Entry
from search.runs.frontier import (
    LEAST_PAIRS,
    noise_errors,
    scored,
    trained,
    unclean,
)

GIVEN_UP = 3  # candidates that stay tainted when they are measured again: the device is not quiet


def next_repeat(entries: Sequence[Entry], objectives: Sequence[Objective], *, share: float) -> int | None:
    """The candidate to train again now; None where no place is uncertain, or the repeats are used up.

    share: of all evaluations, how many may be repeats.
    """
    begun = sum(entry.again is not None and entry.again.trains for entry in entries)
    if begun >= int(share * sum(entry.evaluation is not None for entry in entries)) or not any(
        map(trained, objectives)
    ):
        return None
    candidates = scored(entries, objectives)
    if candidates.noise is None:
        pairs = sum(entry.again is not None and _may_have_scores(entry) for entry in entries)
        once = (
            [entry.number for entry in candidates.frontier() if entry.again is None]
            if pairs < LEAST_PAIRS
            else []
        )
        return min(once, default=None)
    members = candidates.entries
    parts = pareto.doubts(candidates.costs, noise_errors(members, candidates.noise))
    parts[[entry.again is not None for entry in members]] = 0
    return members[int(np.argmax(parts))].number if parts.any() else None


def next_remeasured(entries: Sequence[Entry], objectives: Sequence[Objective]) -> int | None:
    """The candidate to measure again now, those of the frontier first.

    None where every tainted candidate was evaluated twice, or measuring again was in vain GIVEN_UP times.
    """
    in_vain = sum(
        entry.again is not None
        and not entry.again.trains
        and entry.again.evaluation is not None
        and bool(unclean(entry, objectives))
        for entry in entries
    )
    candidates = scored(entries, objectives)
    tainted = [
        entry.number for entry in candidates.entries if entry.again is None and unclean(entry, objectives)
    ]
    if not tainted or in_vain >= GIVEN_UP:
        return None
    best = {entry.number for entry in candidates.frontier()}
    return min(tainted, key=lambda number: (number not in best, number))


def _may_have_scores(entry: Entry) -> bool:
    return (
        entry.again is not None
        and entry.again.trains
        and (entry.again.evaluation is None or entry.again.evaluation.status == "ok")
    )
