"""Times of a CPU in ms at one pace, whatever other programs do to it meanwhile.

A core shares caches, power or the processor itself with others. Its speed halves or doubles from one second
to the next. Eight small models were timed on two cores of a virtual machine, idle or beside one other
program. A median over a second was usually off by 20 %, and at worst by 90 %. Lowest quantiles and processor
times were off by as much. The median relative to steps of the anchor model beside each sample was usually off
by 3 %, and at worst by 15 %.

So a time is given relative to the anchor's, in ms by what a step of the anchor took when this machine was
first measured. That step is the unit of all its times. It is kept in the user's cache folder. A GPU shares
its pace with no other program.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from operators.base.errors import DeviceError, RunError
from operators.base.files import write_whole
from profiler.device.device import Device
from profiler.device.lock import exclusive, shared
from profiler.measuring.anchor import Anchor

# Steps of the anchor of which the fastest counts. The measured model has driven the anchor out of the caches
# before the first step.
_STEPS = 2
# The length (s) and the percentile of the first measurement. A low percentile gives the pace of a free core,
# not of an average hour.
_FIRST_S, _FIRST_PERCENTILE = 1.0, 10


class Pace:
    """The pace of one device, by its anchor.

    Making it takes the device's locks where this machine was never measured.

    usual_ms: a step of the anchor when the machine was first measured (ms); None on a GPU, whose times are
        left as they are

    Raises DeviceError where the pace kept on disk cannot be read or written.
    """

    def __init__(self, anchor: Anchor) -> None:
        self._anchor, self.usual_ms = anchor, usual_ms(anchor.device)

    def beside(self, run: Callable[[], float]) -> Callable[[], float]:
        """A function that calls `run` and returns its time at the usual pace (ms).

        The caller of that function holds the exclusive lock over all calls.

        run: returns an elapsed time (ms)
        """
        usual = self.usual_ms
        if usual is None:
            return run
        # The anchor's time after the previous call, which is the time before this one.
        anchor_ms: float | None = None

        def at_the_usual_pace() -> float:
            nonlocal anchor_ms
            before = _step_ms(self._anchor) if anchor_ms is None else anchor_ms
            ms, anchor_ms = run(), _step_ms(self._anchor)
            return ms * usual * 2 / (before + anchor_ms)

        return at_the_usual_pace


def usual_ms(device: Device) -> float | None:
    """What a step of the anchor took when this CPU was first measured (ms); None on a GPU.

    The time belongs to one number of threads. A CPU that was never measured with so many threads is measured
    now. The caller holds none of the device's locks.

    Raises DeviceError where the kept time cannot be read or written.
    """
    if device.torch_device.type != "cpu":
        return None
    path = kept_in(device)
    if not path.is_file():
        with shared(device.label):
            anchor = Anchor(device)
        with exclusive(device.label):
            if not path.is_file():  # another process may have measured it while this one waited
                _keep(path, _first(anchor))
    try:
        ms = float(json.loads(path.read_text(encoding="utf-8"))["anchor_ms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            f"{path}: expected the anchor model's time on this machine, got {error!r}; remove the file"
        ) from None
    if not 0 < ms < float("inf"):
        raise DeviceError(f"{path}: anchor_ms {ms}: expected a time above 0; remove the file")
    return ms


def kept_in(device: Device) -> Path:
    """The file that holds `usual_ms`: one for each CPU, version of PyTorch and number of threads."""
    words = f"{device.name}-torch-{torch.__version__}-threads-{torch.get_num_threads()}"
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "frontrunner" / "pace" / f"{re.sub(r'[^A-Za-z0-9.+_-]+', '-', words)}.json"


def _step_ms(anchor: Anchor) -> float:
    return min(anchor.step() for _ in range(_STEPS))


def _first(anchor: Anchor) -> float:
    started, times = perf_counter(), list[float]()
    while perf_counter() - started < _FIRST_S or len(times) < _FIRST_PERCENTILE:
        times.append(_step_ms(anchor))
    return float(np.percentile(times, _FIRST_PERCENTILE))


def _keep(path: Path, ms: float) -> None:
    try:
        write_whole(path, json.dumps({"anchor_ms": float(f"{ms:.4g}")}).encode())
    except RunError as error:
        raise DeviceError(
            f"the pace of this machine cannot be kept: {error}; set XDG_CACHE_HOME to a "
            "folder that can be written"
        ) from None
