"""Evaluations that are pretended: at once, without measuring or training anything.

Workers of a cluster import this, so it imports little.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from search.evaluation.outcome import Evaluation, Job, Outcome


def pretended(job: Job) -> Outcome:
    """Scores that depend on the architecture alone and conflict with one another, without measuring or
    training anything.
    """
    architecture = job.architecture
    decode_ms = architecture.depth + architecture.width / 64
    mixers = len({layer.operator for layer in architecture.layers})
    metrics = {
        "loss": 10 / decode_ms + 0.1 * mixers,
        "decode_ms@b1": decode_ms,
        "params": float(architecture.width * architecture.depth),
    }
    return Outcome(Evaluation(status="ok", metrics=metrics, seed=job.seed))


@dataclass
class PretendExecutor:
    """Answers at once, in the order of `order`; stands where evaluations would run."""

    capacity: int = 1
    answer: Callable[[Job], Outcome] = pretended
    rng: random.Random | None = None
    jobs: list[Job] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def next(self) -> tuple[Job, Outcome]:
        job = self.jobs.pop(self.rng.randrange(len(self.jobs)) if self.rng else 0)
        self.answered.append(job.number)
        return job, self.answer(job)

    def place(self, number: int) -> str:
        return "here"

    def close(self) -> None:
        self.jobs.clear()
