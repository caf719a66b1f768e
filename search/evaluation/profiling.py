"""Profiles architectures in a process of their own: each gives its figures or the reason why it has none."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from operators import Architecture
from profiler.device.lock import shared
from profiler.process.worker import ProfilingWorker
from profiler.profile import Profile, ProfileSettings
from search.evaluation.failures import CANDIDATE_ERRORS, Failure, failure_of


def profiled(
    worker: ProfilingWorker,
    architecture: Architecture,
    settings: ProfileSettings,
    *,
    backend: str = "auto",
    seed: int,
    deadline_s: float,
) -> Profile | Failure:
    """What `worker` measures, or how the architecture failed.

    Raises what is not the architecture's fault, as DeviceError.
    """
    try:
        return worker.profile(architecture, settings, backend=backend, seed=seed, deadline_s=deadline_s)
    except CANDIDATE_ERRORS as error:
        return failure_of(error)


@contextmanager
def started(device: str, count: int) -> Iterator[Sequence[ProfilingWorker]]:
    """So many workers whose processes have started, all at the same time, to be used in this thread; they end
    with the block.
    """
    workers = [ProfilingWorker(device) for _ in range(count)]
    with (
        ThreadPoolExecutor(count) as threads,
        ExitStack() as stack,
    ):  # the threads stay, as a worker ends with the one that started it
        for worker in workers:
            stack.callback(worker.close)
        with shared(device):
            list(threads.map(ProfilingWorker.start, workers))
        yield workers
