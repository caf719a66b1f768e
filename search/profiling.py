"""Profiles architectures in a process of their own: each gives its figures or the reason why it has none."""

from collections.abc import Iterable
from typing import Literal

from operators import Architecture
from operators.errors import BackendError, CrashError, DeadlineError, OutOfMemoryError
from operators.value import Value
from profiler.measure import Profile, ProfileSettings
from profiler.worker import ProfilingWorker

# For one architecture named on the command line, where a large model on a CPU may rightly take long.
DEADLINE_S = 3600.0


class Failure(Value):
    """Why an architecture has no profile."""

    status: Literal["unbuildable", "out_of_memory", "timeout", "crashed"]
    reason: str


def profiled(
    worker: ProfilingWorker, architecture: Architecture, settings: ProfileSettings, *, backend: str = "auto", seed: int, deadline_s: float
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


def profile_all(architectures: Iterable[Architecture], settings: ProfileSettings, *, device: str, backend: str) -> list[Profile | Failure]:
    """The architectures one after the other, all by one worker. Raises DeviceError."""
    with ProfilingWorker(device) as worker:
        return [profiled(worker, found, settings, backend=backend, seed=0, deadline_s=DEADLINE_S) for found in architectures]
