"""Keeps the load off a device while it is being measured, across unrelated processes.

`exclusive` is for measuring. `shared` is for everything else that loads the same device, such as training.
The locks are `flock`s: the kernel releases them with the process, however it ends.

Two files a device make a turnstile, which processes enter one at a time. A process that wants the device
alone keeps the turnstile shut until the processes inside have left. So a stream of newcomers cannot starve
it.

The memory of a device has locks of its own (`of="memory"`). Work that may have to share it holds it `shared`.
Work that ran out of it is done again with the memory to itself. Who holds the device never waits for its
memory.

To compile a kernel takes seconds and no device. So a process that holds a GPU `shared` is `outside` while
Triton compiles for it, and measurements need not wait for that.

The files lie in a folder of the user's own below `tempfile.gettempdir()`. The PIDs in them serve messages,
and `members`: processes that may have memory on the device and keep to its locks. The locks are not
reentrant: a process that holds one and asks for the same device again waits for itself.
"""

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

import torch

from operators.base.errors import DeviceError
from operators.kernels.compiling import compile_inside
from profiler.device.device import Device, open_device

# Between two attempts to take a lock (s).
POLL_SECONDS = 0.005
# Far longer than any process holds a device. A holder that hangs then does not block all others without a
# message (s).
WAIT_LIMIT_S = 3600.0

# What of a device is held.
Held = Literal["time", "memory"]
Standing = Literal["waiting", "shared", "exclusive", "free"]
_tell: ContextVar[Callable[[Standing], None]] = ContextVar("_tell", default=lambda standing: None)
# The files of a lock: its turnstile, and its room.
_PARTS: dict[Held, tuple[str, str]] = {
    "time": ("turnstile", "room"),
    "memory": ("memory-turnstile", "memory-room"),
}
# Bytes of one PID in a file, padded with spaces.
_SLOT = 12


@contextmanager
def observed(tell: Callable[[Standing], None]) -> Iterator[None]:
    """Inside, calls `tell` each time that this thread's standing to a device changes.

    tell: receives the standing
    """
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


@contextmanager
def exclusive(device: str, *, of: Held = "time", timeout_s: float = WAIT_LIMIT_S) -> Iterator[None]:
    """Holds the device of that name (as for `open_device`) alone.

    of: what of it is held
    timeout_s: how long to wait for it (s)

    Raises DeviceError that names the holders, after `timeout_s`.
    """
    opened, deadline = open_device(device, engines=True), time.monotonic() + timeout_s
    enrol(opened)
    with (
        _told("exclusive") as inside,
        _opened(opened, _PARTS[of][0]) as turnstile,
        _opened(opened, _PARTS[of][1]) as room,
        _held(turnstile, opened, deadline, (turnstile, room)),
        _signed_in(turnstile),
        _held(room, opened, deadline, (room,)),
    ):
        inside()
        yield


@contextmanager
def shared(
    device: str, *, of: Held = "time", timeout_s: float = WAIT_LIMIT_S
) -> Iterator[Callable[[], float]]:
    """Holds the device beside other `shared` holders, never beside an `exclusive` one.

    It gives a function for work that takes long and can pause. The function releases the device for as long
    as another process wants it alone, and returns how long the work has waited since the function was last
    called (s). Before that it waits until all is done that this process queued.

    of: what of it is held
    timeout_s: how long to wait for the device (s)

    Raises DeviceError as `exclusive` does.
    """
    opened, deadline = open_device(device, engines=True), time.monotonic() + timeout_s
    enrol(opened)
    with (
        _told("shared") as inside,
        _opened(opened, _PARTS[of][0]) as turnstile,
        _opened(opened, _PARTS[of][1]) as room,
        _Hold(opened, turnstile, room) as hold,
    ):
        hold.enter(deadline)
        inside()
        if of == "memory":
            yield hold.give_way
            return
        if opened.torch_device.type == "cuda":
            compile_inside(outside)
        _holds.append(hold)
        try:
            yield hold.give_way
        finally:
            _holds.remove(hold)


@contextmanager
def outside() -> Iterator[None]:
    """Inside, the device that this process holds `shared` is released, for work that needs none.

    Before that it waits until all is done that this process queued. So it does nothing while a graph is
    captured, when nothing may be waited for. Nor does it where the process holds several devices: which one
    the work belongs to is not known.
    """
    capturing = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    if capturing or len(_holds) != 1:
        yield
        return
    hold = _holds.pop()
    try:
        with hold.left():
            yield
    finally:
        _holds.append(hold)


class _Hold:
    """A device that this process may hold `shared`, until the block ends.

    turnstile, room: open files of its lock
    """

    def __init__(self, device: Device, turnstile: int, room: int) -> None:
        self._device, self._turnstile, self._room = device, turnstile, room
        self._stay, self._tell, self._waited = ExitStack(), _tell.get(), 0.0

    def __enter__(self) -> "_Hold":
        return self

    def __exit__(self, *_: object) -> None:
        self._stay.close()

    def enter(self, deadline: float) -> None:
        with _held(self._turnstile, self._device, deadline, (self._turnstile,)):
            # A process that is alone inside holds the turnstile too, so that neither of these waits or meets
            # another's entry.
            fcntl.flock(self._room, fcntl.LOCK_SH)
            self._stay.enter_context(_signed_in(self._room))

    def give_way(self) -> float:
        """What `shared` gives."""
        try:
            fcntl.flock(self._turnstile, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)
        # A process that wants the device alone keeps the turnstile shut, before and while it has the device.
        except BlockingIOError:
            self._leave()
            self._come_back()
        waited, self._waited = self._waited, 0.0
        return waited

    @contextmanager
    def left(self) -> Iterator[None]:
        """Inside, the device is released."""
        self._leave()
        self._tell("free")
        try:
            yield
        finally:
            self._come_back()

    def _leave(self) -> None:
        self._device.synchronize()
        self._stay.close()
        fcntl.flock(self._room, fcntl.LOCK_UN)

    def _come_back(self) -> None:
        began = time.monotonic()
        self._tell("waiting")
        self.enter(began + WAIT_LIMIT_S)
        self._tell("shared")
        self._waited += time.monotonic() - began


# What `outside` releases: one for each device whose time this process holds `shared`.
_holds: list[_Hold] = []


def members(device: Device) -> frozenset[int]:
    """PIDs of the living processes that have asked for a lock of the device, or enrolled."""
    with _opened(device, "members") as file:
        return frozenset(_entries(file).values())


def enrol(device: Device) -> None:
    """Makes this process a member.

    Asking for a lock does so too. A process that uses the device under another's lock calls this itself.
    """
    with _opened(device, "members") as file:
        # This lock is held for a moment only.
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.getpid() not in _entries(file).values():
            _write_pid(file)


@contextmanager
def _told(standing: Standing) -> Iterator[Callable[[], None]]:
    """Reports that this thread waits, and afterwards that it is out.

    It gives a function that reports `standing`, to be called when the thread has got in.
    """
    tell = _tell.get()
    tell("waiting")
    try:
        yield lambda: tell(standing)
    finally:
        tell("free")


@contextmanager
def _opened(device: Device, part: str) -> Iterator[int]:
    file = os.open(
        _folder() / f"{device.lock_key}.{part}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        yield file
    finally:
        # This unlocks even where a forked child still has the file open, which closing alone would not.
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)


@contextmanager
def _held(file: int, device: Device, deadline: float, signed: tuple[int, ...]) -> Iterator[None]:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                pids = sorted({pid for place in signed for pid in _entries(place).values()})
                holders = f"process {', '.join(map(str, pids))}" if pids else "another process"
                raise DeviceError(
                    f"device {device.label} is in use by {holders}: it was not released in time"
                ) from None
            time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"frontrunner-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise DeviceError(
            f"{folder}: expected a folder that belongs to this user alone (mode 700), for "
            "the locks of devices"
        )
    return folder


@contextmanager
def _signed_in(file: int) -> Iterator[None]:
    """Writes this process's PID into the first free slot, and clears the slot at the end.

    Only the holder of the turnstile may enter. Leaving touches only its own slot.
    """
    slot = _write_pid(file)
    try:
        yield
    finally:
        os.pwrite(file, b" " * _SLOT, slot * _SLOT)


def _write_pid(file: int) -> int:
    """Writes this process's PID into the first free slot, and returns the number of the slot."""
    taken = _entries(file)
    slot = next(number for number in range(len(taken) + 1) if number not in taken)
    os.pwrite(file, str(os.getpid()).ljust(_SLOT).encode(), slot * _SLOT)
    return slot


def _entries(file: int) -> dict[int, int]:
    """The PIDs of the processes that are still alive, by slot."""
    content = os.pread(file, os.fstat(file).st_size, 0)
    slots = (content[start : start + _SLOT].strip() for start in range(0, len(content), _SLOT))
    return {slot: int(text) for slot, text in enumerate(slots) if text.isdigit() and _alive(int(text))}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    # A process of another user has this number: it was given out again.
    except (ProcessLookupError, PermissionError):
        return False
    return True
