"""Where the workers' time went."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import accumulate

from search.evaluation.outcome import QUEUE, Evaluation, worked
from search.runs.entry import Attempt, Entry


def worker_seconds(entries: Sequence[Entry], *, workers: int, now: datetime | None) -> dict[str, float]:
    """Seconds of workers by purpose.

    Purposes are those of the evaluations, as `train`; `other` is the rest of an evaluation. `idle` is the
    rest of the workers' time while anything was under way, lost attempts included: while a run rests, no
    worker is idle. A candidate's `queue`, its wait for workers, is no worker's time.

    workers: of the configuration; if so many were never at work at once, fewer count.
    now: while the run is driven, so that what is under way counts; else None.
    """
    spans, queued = [], 0.0
    purposes: dict[str, float] = {}
    for attempts, evaluation, ended in _evaluations(entries):
        end = ended or now
        if not attempts or end is None:
            continue
        begun = attempts[-1].at
        spans.append((begun.timestamp(), max(begun, end).timestamp()))
        by_purpose = worked(evaluation.seconds) if evaluation else {}
        waited = evaluation.seconds.get(QUEUE, 0.0) if evaluation else 0.0
        queued += waited
        for name, seconds in by_purpose.items():
            purposes[name] = purposes.get(name, 0.0) + seconds
        rest = spans[-1][1] - spans[-1][0] - waited - sum(by_purpose.values())
        purposes["other"] = purposes.get("other", 0.0) + max(0.0, rest)
    busy = sum(end - begun for begun, end in spans) - queued
    return {**purposes, "idle": max(0.0, min(workers, _at_once(spans)) * _covered(spans) - busy)}


def searched(entries: Sequence[Entry], until: datetime | None = None) -> float:
    """Seconds in which anything was under way, of the evaluations that ended.

    until: only those that ended by then; None for all.
    """
    spans = [(attempts[-1].at, ended) for attempts, _, ended in _evaluations(entries) if attempts and ended]
    return _covered(
        [(begun.timestamp(), ended.timestamp()) for begun, ended in spans if until is None or ended <= until]
    )


def _evaluations(
    entries: Sequence[Entry],
) -> Iterator[tuple[Sequence[Attempt], Evaluation | None, datetime | None]]:
    """First and second evaluations, each with its attempts and when it ended."""
    for entry in entries:
        yield entry.attempts, entry.evaluation, entry.ended
        if entry.again is not None:
            yield entry.again.attempts, entry.again.evaluation, entry.again.ended


def _at_once(spans: Sequence[tuple[float, float]]) -> int:
    """How many intervals overlap at most; one that begins as another ends does not."""
    changes = sorted([(begun, 1) for begun, _ in spans] + [(end, -1) for _, end in spans])
    return max(accumulate(change for _, change in changes), default=0)


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for begun, end in sorted(spans):
        total += max(0.0, end - max(begun, reached))
        reached = max(reached, end)
    return total
