"""Profiles architectures in a separate process, so that a crash, a hang or lack of memory harms nothing else.

This is the side that asks. `profiler.process.worker_process` is the side that works. They send each other
pickled values over a socket pair.

After running out of memory, or after an error of our own classes, the process has cleaned up and serves the
next request. After anything else (an illegal access, which leaves a CUDA context unusable, a signal, a passed
deadline, a defect) it is killed: the kernel releases its locks, and the driver its memory.

The next request starts a new process, and nothing starts one sooner. Starting loads the device, so that
nothing may be measured meanwhile, and the next request comes at once anyway. Each process times the anchor
model before it serves, which shows whether the device has changed.
"""

from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any, Literal, Self

from operators.architecture import Architecture
from operators.base.errors import CrashError, DeadlineError, DeviceError, OutOfMemoryError
from operators.vision.vision_language import VisionLanguage
from profiler.device.lock import WAIT_LIMIT_S, Standing, shared
from profiler.device.names import computes_on
from profiler.process.child_process import Child
from profiler.profile import Profile, ProfileSettings

# A busy machine may take long to import PyTorch and the kernel libraries (s).
START_TIMEOUT_S = 120.0
CHECK_TIMEOUT_S = 30.0
# The anchor may take so many times as long as at first. Only a slower anchor counts, because the first time
# may have met low clocks. On a CPU that others use, the time shows nothing about its health: there the anchor
# only has to answer.
SLOWEST_ANCHOR = {"cpu": inf, "cuda": 1.1}

_PHASES: dict[Standing, str] = {
    "free": "preparing",
    "waiting": "waiting for the device",
    "shared": "building",
    "exclusive": "measuring",
}


@dataclass(frozen=True)
class Request:
    """A measurement to make."""

    architecture: Architecture | VisionLanguage
    settings: ProfileSettings
    backend: str
    seed: int


# Asks for the time of the anchor model instead (ms).
ANCHOR: Literal["anchor"] = "anchor"


@dataclass(frozen=True)
class Answer:
    """The result of a request.

    value: the result, or an exception where the request failed
    fit: whether the process can serve another request
    """

    value: Any
    fit: bool = True


class ProfilingWorker:
    """A process that measures on one device, replaced when it breaks.

    It ends with the thread that started it, however that thread ends. It must not be shared between threads.
    Close it, or use `with`.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._child: Child | None = None
        self._checked = False
        self._anchor_ms: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The PID of the process that will serve the next request; None where there is none."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Starts the process and waits until it can measure.

        `profile` does this where it was not done. The caller holds the device's shared lock, because
        importing loads the device too.

        Raises DeviceError where starting fails.
        """
        self._started()

    def profile(
        self,
        architecture: Architecture | VisionLanguage,
        settings: ProfileSettings,
        *,
        backend: str = "auto",
        seed: int = 0,
        deadline_s: float,
    ) -> Profile:
        """Measures as `profiler.measuring.measure.measure` does, in the process.

        The caller holds none of the device's locks.

        deadline_s: for building and measuring (s); waiting for the device does not count

        Raises the errors of `measure` that are ours.
        Raises OutOfMemoryError, DeadlineError or CrashError where the measurement did not end well.
        Raises DeviceError also where the device has changed since this object first used it.
        Raises RuntimeError for a defect, with its traceback as a note.
        """
        child = self._child
        if child is None or not child.alive:
            with shared(self.device):
                child = self._started()
        if not self._checked:
            self._check(child)
        profile: Profile = self._asked(child, Request(architecture, settings, backend, seed), deadline_s)
        return profile

    def close(self) -> None:
        """Kills the process, if there is one.

        Raises DeviceError if it does not end, which happens while a driver does not let it go.
        """
        child, self._child = self._child, None
        if child is not None:
            try:
                child.close()
            except DeviceError as error:
                raise DeviceError(f"device {self.device}: {error}") from None

    def _started(self) -> Child:
        self.close()
        child = Child("profiler.process.worker_process", self.device, called="profiling")
        self._child, self._checked = child, False
        try:
            self._asked(child, None, START_TIMEOUT_S)
        except (CrashError, DeadlineError, OutOfMemoryError) as error:
            raise DeviceError(f"device {self.device} cannot be opened: {error}") from None
        return child

    def _check(self, child: Child) -> None:
        try:
            anchor_ms: float = self._asked(child, ANCHOR, CHECK_TIMEOUT_S)
        except (CrashError, DeadlineError, OutOfMemoryError) as error:
            raise DeviceError(f"device {self.device} cannot run the anchor model: {error}") from None
        if self._anchor_ms is None:
            self._anchor_ms = anchor_ms
        if anchor_ms > self._anchor_ms * SLOWEST_ANCHOR[computes_on(self.device).partition(":")[0]]:
            self.close()
            raise DeviceError(
                f"device {self.device} is not what it was: a step of the anchor model takes "
                f"{anchor_ms:.4g} ms, "
                f"at first it took {self._anchor_ms:.4g} ms"
            )
        self._checked = True

    def _asked(self, child: Child, request: Request | Literal["anchor"] | None, deadline_s: float) -> Any:
        """What the process answers to a request or, without one, to having been started.

        The process is killed unless it can serve the next request.

        Raises the answer where it is an exception.
        """
        try:
            if request is not None:
                try:
                    child.connection.send(request)
                except OSError:
                    raise child.death("idle") from None
            answer = _answer(child, deadline_s)
        # After an interrupt too: the answer would come later, to another question.
        except BaseException:
            self.close()
            raise
        if not answer.fit:
            self.close()
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value


def _answer(child: Child, deadline_s: float) -> Answer:
    """Waits for the answer; messages before it give the standing of the process to the device.

    Raises DeadlineError where the deadline passes.
    Raises CrashError or OutOfMemoryError where the process ended.
    """
    standing: Standing = "free"
    counted, since = 0.0, monotonic()
    while True:
        # The lock ends a wait by itself, with an error that names the holders. After a longer wait, the
        # process hangs.
        left = 2 * WAIT_LIMIT_S if standing == "waiting" else deadline_s - counted
        if not child.connection.poll(max(0.0, left - (monotonic() - since))):
            raise DeadlineError(f"not finished after {deadline_s:g} s, while {_PHASES[standing]}")
        try:
            message: Answer | Standing = child.connection.recv()
        except (EOFError, OSError):
            raise child.death(_PHASES[standing]) from None
        if isinstance(message, Answer):
            return message
        now = monotonic()
        counted += 0.0 if standing == "waiting" else now - since
        standing, since = message, now
