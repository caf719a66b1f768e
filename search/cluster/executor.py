"""What runs evaluations for the driver, how it says that one was lost, and the simplest: one after the other in this process."""

from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

from operators.base.errors import RunError
from profiler.process.worker import ProfilingWorker
from search.evaluation.evaluate import evaluate, failure
from search.evaluation.outcome import Job, Outcome


@dataclass(frozen=True)
class Lost:
    """An evaluation that has no outcome, because whoever made it is gone or unfit; nothing of it can arrive later.

    blame: `machine` went away or broke, which no candidate does; the `worker`'s process ended, and the candidate may have been the reason.
    """

    blame: Literal["machine", "worker"]
    reason: str


class Executor(Protocol):
    """Runs jobs."""

    @property
    def capacity(self) -> int:
        """How many may be under way at once now, at least 1."""

    def submit(self, job: Job) -> None:
        """Starts a job, or keeps it until a worker is free; returns at once."""

    def next(self) -> tuple[Job, Outcome | Lost]:
        """Waits for the next job that ended, in the order in which they end. Each job that was submitted is returned once."""

    def place(self, number: int) -> str:
        """Where a submitted job runs, for people; empty while it waits."""

    def close(self) -> None:
        """Gives up what is under way and frees everything."""


class InlineExecutor:
    """One job after the other, trained in this process, for debugging and tests. The deadline holds for profiling alone.

    Profiling has its own process here too: a candidate that crashes must not end the search, and its figures must not depend on what this
    process did before.
    """

    capacity = 1

    def __init__(self, device: str) -> None:
        self._waiting: deque[Job] = deque()
        self._profiler = ProfilingWorker(device)

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def next(self) -> tuple[Job, Outcome | Lost]:
        job = self._waiting.popleft()
        try:
            return job, evaluate(job, self._profiler)
        except OSError as error:
            raise RunError(
                f"candidate {job.number} could not be evaluated here: {error}; `frontrunner resume` tries it again"
            ) from None

    def place(self, number: int) -> str:
        return "this process"

    def close(self) -> None:
        self._waiting.clear()
        self._profiler.close()


CRASHES = 2
"""So many workers must have died under a candidate before it is taken for the reason."""


class Retries:
    """Which lost evaluations are made again: at most `limit` times each, and not where the candidate ends its workers."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lost: dict[tuple[int, int], list[Lost]] = {}  # by candidate and seed

    def verdict(self, job: Job, lost: Lost) -> Outcome | None:
        """None where the job is to be submitted again, else its evaluation."""
        times = self._lost.setdefault((job.number, job.seed), [])
        times.append(lost)
        if sum(each.blame == "worker" for each in times) >= CRASHES or len(times) > self._limit:
            count = "" if len(times) == 1 else f"{len(times)} times: "
            return failure(job, "crashed", f"{count}{lost.reason}"[:500])
        return None
