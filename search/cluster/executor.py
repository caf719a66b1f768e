"""The interface of executors, lost evaluations with their retries, and the executor of this process."""

from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

from operators.base.errors import BrokenDeviceError, RunError
from profiler.process.worker import ProfilingWorker
from search.evaluation.evaluate import evaluate
from search.evaluation.outcome import Job, Outcome
from search.evaluation.settled import failure


@dataclass(frozen=True)
class Lost:
    """An evaluation without an outcome, as its worker is gone or unfit. No outcome of it can arrive later.

    blame: `machine` if the machine was lost or broke, which no candidate can cause. `worker` if the worker's
        process ended, or its GPU gave up there, which the candidate may have caused.
    reason: one line for people.
    """

    blame: Literal["machine", "worker"]
    reason: str


class Executor(Protocol):
    """Runs evaluations, as jobs."""

    @property
    def capacity(self) -> int:
        """Number of jobs that may be under way at once now, at least 1."""

    def submit(self, job: Job) -> None:
        """Starts a job, or keeps it until a worker is free. It returns at once."""

    def next(self) -> tuple[Job, Outcome | Lost]:
        """Waits for the next job to end, and returns it. Each submitted job is returned once."""

    def place(self, number: int) -> str:
        """The place where the job of candidate `number` runs, for people; empty while it waits."""

    def close(self) -> None:
        """Abandons the jobs under way and frees all resources."""


class InlineExecutor:
    """Runs one job after the other and trains in this process, for debugging and tests.

    Only profiling has a deadline. It runs in a process of its own here too: a candidate that crashes must not
    end the search, and its figures must not depend on the history of this process.

    device: device of the run.
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
        except (OSError, BrokenDeviceError) as error:
            raise RunError(
                f"candidate {job.number} could not be evaluated here: {error}; "
                "`frontrunner resume` tries it again"
            ) from None

    def place(self, number: int) -> str:
        return "this process"

    def close(self) -> None:
        self._waiting.clear()
        self._profiler.close()


CRASHES = 2
"""Number of workers that must have died with a candidate before it counts as the cause."""


class Retries:
    """Decides which lost evaluations are made again. A candidate that ends its workers is not.

    limit: how often one evaluation is made again, at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lost: dict[tuple[int, int], list[Lost]] = {}  # by number of the candidate and seed

    def verdict(self, job: Job, lost: Lost) -> Outcome | None:
        """None if the job shall be submitted again, otherwise its evaluation, which says that it crashed."""
        times = self._lost.setdefault((job.number, job.seed), [])
        times.append(lost)
        if sum(each.blame == "worker" for each in times) >= CRASHES or len(times) > self._limit:
            count = "" if len(times) == 1 else f"{len(times)} times: "
            return failure(job.seed, "crashed", f"{count}{lost.reason}"[:500])
        return None
