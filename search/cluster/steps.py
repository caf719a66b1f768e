"""Which worker does which part of an evaluation next.

A run without `device_kind` has evaluations of one part: a worker measures and trains. Otherwise a candidate is measured on each kind in
turn, by a worker that has it, and then trained by any. What waits to be measured goes first: it takes seconds, where a training takes
minutes, so that whoever trains finds candidates that are measured already. For that one candidate more is under way than there are workers,
unless all have every kind.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from search.evaluation.outcome import QUEUE, UNMEASURED, Job, Measured, worked

MANY = 3


@dataclass(frozen=True, eq=False)
class Step:
    """A part of an evaluation that is to be made. kind: to measure on; it is empty for training and for an evaluation of one part.

    before: what is known of the candidate by then. since: when it began to wait for a worker, by the clock `time.monotonic`.
    """

    job: Job
    kind: str
    before: Measured = UNMEASURED
    since: float = field(default_factory=time.monotonic)

    @property
    def whole(self) -> bool:
        """Whether the evaluation has no other part."""
        return not self.job.kinds

    @property
    def label(self) -> str:
        """The kind in the names of metrics, which carry none where the run has one."""
        return self.kind if len(self.job.kinds) > 1 else ""

    def begun(self) -> Measured:
        """What is known of the candidate now that the waiting has ended."""
        return self.before.after({QUEUE: time.monotonic() - self.since})

    def left_s(self, deadline_s: float) -> float:
        """Of the evaluation's deadline, which does not pass while it waits for a worker."""
        return deadline_s - sum(worked(self.before.seconds).values())

    def known(self) -> dict[str, object]:
        """Of the candidate, as fields of an Evaluation."""
        return self.before.known() if self.before.profiles else {}

    def following(self, measured: Measured) -> "Step":
        rest = self.job.kinds[self.job.kinds.index(self.kind) + 1 :]
        return Step(self.job, rest[0] if rest else "", measured)


class Able(Protocol):
    """A worker. kinds: of device that the run measures on and this worker has."""

    @property
    def kinds(self) -> frozenset[str]: ...


W = TypeVar("W", bound=Able)


def places(workers: Sequence[Able], kinds: Sequence[str]) -> int:
    """How many candidates may be under way at once."""
    return len(workers) + any(not worker.kinds.issuperset(kinds) for worker in workers)


def first_step(job: Job) -> Step:
    return Step(job, job.kinds[0] if job.kinds else "")


def assignment(
    waiting: Iterable[Step], idle: Sequence[W], *, busy: Sequence[tuple[W, Step]]
) -> tuple[Step, W] | None:
    """What to do next and who of the idle does it: the one with the fewest kinds, as others may be needed. None where nobody can."""
    for step in sorted(waiting, key=lambda step: not step.kind):
        able = (
            [worker for worker in idle if step.kind in worker.kinds]
            if step.kind
            else list(_trainers(idle, busy))
        )
        if able:
            return step, min(reversed(able), key=lambda worker: len(worker.kinds))
    return None


def _trainers(idle: Sequence[W], busy: Sequence[tuple[W, Step]]) -> Iterator[W]:
    """The idle workers but those kept ready to measure: one of each kind that more than `MANY` times as many workers lack as have it.

    Where nobody of a kind is ready, workers wait for a training to end before they get a candidate that is measured. In simulations with
    trainings of 60 s, measurements of 1 and 4 s and 2 to 24 workers this costs more than one trainer less only where so many need it.
    While nobody trains, nobody is kept from it.
    """
    everyone = [*idle, *(worker for worker, _ in busy)]
    training = [worker for worker, step in busy if not step.kind]
    having = Counter(kind for worker in everyone for kind in worker.kinds)
    ready = having - Counter(kind for worker in training for kind in worker.kinds)
    kept = {
        kind for kind, count in having.items() if ready[kind] == 1 and len(everyone) - count > MANY * count
    }
    yield from (worker for worker in idle if not training or kept.isdisjoint(worker.kinds))
