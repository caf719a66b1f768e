"""The process of a `profiler.process.worker.ProfilingWorker`, which serves its requests.

Its command: python -m profiler.process.worker_process SOCKET PARENT DEVICE
"""

import gc
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch

from operators.base.errors import CrashError, FrontrunnerError, OutOfMemoryError, first_line
from profiler.device.device import Device, open_device
from profiler.device.lock import enrol, exclusive, observed
from profiler.device.memory import memory_errors
from profiler.measuring.anchor import Anchor
from profiler.measuring.measure import measure
from profiler.process.child_process import settle_in
from profiler.process.worker import Answer, Request
from profiler.profile import Profile

# Timings of the anchor for one answer. The fastest counts, because the clocks of an idle GPU take a moment to
# rise. On a CPU it only has to answer, see `profiler.process.worker.SLOWEST_ANCHOR`.
_CHECKS = {"cuda": 3, "cpu": 1}


def main(socket: int, parent: int, device: str) -> None:
    """Serves requests until the other end is closed."""
    settle_in(parent)
    # Measuring sets its own number of threads.
    torch.set_num_threads(1)
    with Connection(socket) as connection, suppress(EOFError, BrokenPipeError):
        started = _answered(lambda: _open(device), None)
        if isinstance(started.value, Exception):
            connection.send(Answer(started.value, fit=False))
            return
        opened, anchor = started.value
        connection.send(Answer(None))
        with observed(connection.send):
            while True:
                request = connection.recv()
                connection.send(_answered(partial(_serve, request, opened, anchor), opened))


def _open(name: str) -> tuple[Device, Anchor]:
    device = open_device(name, engines=True)
    # The parent holds the lock for this process.
    enrol(device)
    return device, Anchor(device)


def _serve(request: Request | Literal["anchor"], device: Device, anchor: Anchor) -> Profile | float:
    if isinstance(request, Request):
        return measure(
            request.architecture,
            request.settings,
            device=device.label,
            backend=request.backend,
            seed=request.seed,
            anchor=anchor,
        )
    with exclusive(device.label):
        return min(anchor.time().median_ms for _ in range(_CHECKS[device.torch_device.type]))


def _answered(work: Callable[[], Any], device: Device | None) -> Answer:
    """What `work` returns or why it failed, after everything that it left in memory is gone."""
    try:
        with memory_errors():
            answer = Answer(work())
    except Exception as error:
        answer = _failure(error)
    # This is not done earlier: while an error is handled, its frames hold the model.
    broken = _cleaned(device)
    return Answer(CrashError(f"the device gave up: {broken}"), fit=False) if broken else answer


def _failure(error: Exception) -> Answer:
    if isinstance(error, FrontrunnerError) and error.__cause__ is None:
        return Answer(type(error)(str(error)))
    if (lack := _lack_of_memory(error)) is not None:
        # Within a graph's capture, lack of memory ends in another error, and may leave the allocator in an
        # unfinished state.
        return Answer(OutOfMemoryError(first_line(lack)), fit=lack is error)
    if isinstance(error, FrontrunnerError):
        # Others' code failed, and may have left something unfinished too.
        return Answer(type(error)(str(error)), fit=False)
    defect = RuntimeError(f"{type(error).__name__}: {first_line(error)}")
    defect.add_note(traceback.format_exc())
    return Answer(defect, fit=False)


def _lack_of_memory(error: BaseException | None) -> BaseException | None:
    """The error itself, or the first one behind it, that means lack of memory; None where there is none."""
    if error is None or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return error
    return _lack_of_memory(error.__cause__ or error.__context__)


def _cleaned(device: Device | None) -> str:
    """Frees what is no longer in use, and returns why the device cannot go on, or nothing.

    After an illegal access every call to the device fails.
    """
    try:
        if device is not None:
            device.synchronize()
        gc.collect()
        # What is left are imported modules and caches. Before each timing, garbage is collected: to look at
        # all of them took 0.2 s each time.
        gc.freeze()
        # This does nothing where CUDA was not used.
        torch.cuda.empty_cache()
    except RuntimeError as error:
        return first_line(error)
    return ""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
