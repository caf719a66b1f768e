"""Decides which worker does which part of an evaluation next.

Without `device_kind` an evaluation has one part: a worker measures and trains the candidate. With it a
candidate is measured on each kind in turn, by a worker with that kind, and then trained by any worker.

Measurements go first. They take seconds, trainings minutes, so a worker that becomes free to train finds
measured candidates. For the same reason one candidate more is under way than there are workers, unless all
workers have every kind.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from search.evaluation.outcome import QUEUE, UNMEASURED, Job, Measured, worked

MANY = 3
"""Ratio of workers without a kind to workers with it, above which one with it is kept ready to measure."""


@dataclass(frozen=True, eq=False)
class Step:
    """A part of an evaluation that waits to be made.

    job: the evaluation.
    kind: kind of device to measure on; empty for training, and for an evaluation of one part.
    before: the candidate's measurements of earlier parts.
    since: time when the step began to wait for a worker (seconds of `time.monotonic`).
    """

    job: Job
    kind: str
    before: Measured = UNMEASURED
    since: float = field(default_factory=time.monotonic)

    @property
    def whole(self) -> bool:
        """Whether the evaluation has only one part."""
        return not self.job.kinds

    @property
    def label(self) -> str:
        """The kind as the names of metrics carry it: empty if the run has only one kind."""
        return self.kind if len(self.job.kinds) > 1 else ""

    def begun(self) -> Measured:
        """The earlier measurements, with the time of waiting up to now added."""
        return self.before.after({QUEUE: time.monotonic() - self.since})

    def left_s(self, deadline_s: float) -> float:
        """Seconds left of the evaluation's deadline. Time spent waiting for a worker does not count.

        deadline_s: deadline of an evaluation (seconds).
        """
        return deadline_s - sum(worked(self.before.seconds).values())

    def known(self) -> dict[str, object]:
        """The earlier measurements as fields of an Evaluation."""
        return self.before.known() if self.before.profiles else {}

    def following(self, measured: Measured) -> "Step":
        """The next step of the evaluation, given the measurements up to now."""
        rest = self.job.kinds[self.job.kinds.index(self.kind) + 1 :]
        return Step(self.job, rest[0] if rest else "", measured)


class Able(Protocol):
    """A worker.

    kinds: kinds of device that the run measures on and the worker has.
    """

    @property
    def kinds(self) -> frozenset[str]: ...


W = TypeVar("W", bound=Able)


def places(workers: Sequence[Able], kinds: Sequence[str]) -> int:
    """Number of candidates that may be under way at once. kinds: those that the run measures on."""
    return len(workers) + any(not worker.kinds.issuperset(kinds) for worker in workers)


def first_step(job: Job) -> Step:
    return Step(job, job.kinds[0] if job.kinds else "")


def assignment(
    waiting: Iterable[Step], idle: Sequence[W], *, busy: Sequence[tuple[W, Step]]
) -> tuple[Step, W] | None:
    """The next step and the idle worker for it; None if no idle worker can do any waiting step.

    Of several able workers it is the one with the fewest kinds, as the others may be needed to measure.

    waiting: steps, in the order in which they came.
    busy: workers with their steps.
    """
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
    """The idle workers that may train. The last ready worker of a scarce kind is kept to measure.

    A kind is scarce if more than MANY times as many workers lack it as have it. While no worker of a kind is
    ready, others wait for a training to end before they get a measured candidate. In simulations (trainings
    of 60 s, measurements of 1 and 4 s, 2 to 24 workers) this waiting cost more than one trainer only for
    scarce kinds. While no worker trains, none is kept from training.
    """
    workers = [*idle, *(worker for worker, _ in busy)]
    training = [worker for worker, step in busy if not step.kind]
    having = Counter(kind for worker in workers for kind in worker.kinds)
    ready = having - Counter(kind for worker in training for kind in worker.kinds)
    kept = {
        kind for kind, count in having.items() if ready[kind] == 1 and len(workers) - count > MANY * count
    }
    yield from (worker for worker in idle if not training or kept.isdisjoint(worker.kinds))
