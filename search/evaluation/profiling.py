"""Profiles architectures in processes of their own: each gives its figures or the reason it has none."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from operators import Architecture, VisionLanguage
from profiler.device.lock import shared
from profiler.process.worker import ProfilingWorker
from profiler.profile import Profile, ProfileSettings
from search.evaluation.failures import CANDIDATE_ERRORS, Failure, failure_of


def profiled(
    worker: ProfilingWorker,
    architecture: Architecture | VisionLanguage,
    settings: ProfileSettings,
    *,
    backend: str = "auto",
    seed: int,
    deadline_s: float,
) -> Profile | Failure:
    """Returns what `worker` measures, or how the architecture failed.

    Raises what is not the architecture's fault, as DeviceError.
    """
    try:
        return worker.profile(architecture, settings, backend=backend, seed=seed, deadline_s=deadline_s)
    except CANDIDATE_ERRORS as error:
        return failure_of(error)


@contextmanager
def started(device: str, count: int) -> Iterator[Sequence[ProfilingWorker]]:
    """Starts `count` workers whose processes begin at the same time; they end with the block.

    They are to be used in the thread that enters the block.
    """
    workers = [ProfilingWorker(device) for _ in range(count)]
    # The threads stay until the block ends: a worker ends with the thread that started it.
    with ThreadPoolExecutor(count) as threads, ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.close)
        with shared(device):
            list(threads.map(ProfilingWorker.start, workers))
        yield workers
