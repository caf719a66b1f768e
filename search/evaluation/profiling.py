"""Profiles architectures in a process of their own: each gives its figures or the reason why it has none."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Literal

from operators import Architecture
from operators.base.errors import BackendError, CrashError, DeadlineError, OutOfMemoryError
from operators.base.value import Value
from profiler.device.lock import shared
from profiler.process.worker import ProfilingWorker
from profiler.profile import Profile, ProfileSettings


class Failure(Value):
    """Why an architecture has no profile."""

    status: Literal["unbuildable", "out_of_memory", "timeout", "crashed"]
    reason: str


def profiled(
    worker: ProfilingWorker,
    architecture: Architecture,
    settings: ProfileSettings,
    *,
    backend: str = "auto",
    seed: int,
    deadline_s: float,
) -> Profile | Failure:
    """What `worker` measures, or how the architecture failed. Raises what is not the architecture's fault, as DeviceError."""
    try:
        return worker.profile(architecture, settings, backend=backend, seed=seed, deadline_s=deadline_s)
    except BackendError as error:
        return Failure(status="unbuildable", reason=str(error))
    except OutOfMemoryError as error:
        return Failure(status="out_of_memory", reason=str(error))
    except DeadlineError as error:
        return Failure(status="timeout", reason=str(error))
    except CrashError as error:
        return Failure(status="crashed", reason=str(error))


@contextmanager
def started(device: str, count: int) -> Iterator[Sequence[ProfilingWorker]]:
    """So many workers whose processes have started, all at the same time, to be used in this thread; they end with the block."""
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
