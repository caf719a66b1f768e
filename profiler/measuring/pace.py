"""Times of a CPU in ms of one pace, whatever other programs do to it meanwhile.

A core that shares caches, power or the processor itself with others runs at half or twice its pace from one
second to the next. For 8
small models on two cores of a virtual machine, quiet or beside one other program, a median over a second was
off by 20 % as a rule and by
90 % at worst; lowest quantiles and processor times were off by as much. Relative to steps of the anchor model
beside each sample the
median was off by 3 % as a rule and by 15 % at worst. So a time is told relative to the anchor's, in ms by
what a step of the anchor took
when this machine was first measured: the unit of all its times, kept in the user's cache folder. A GPU has
    its pace to itself.
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

# of which the fastest counts: the model that is measured has driven the anchor out of the caches before the
# first
_STEPS = 2
_FIRST_S, _FIRST_PERCENTILE = (
    1.0,
    10,
)  # of the first measurement: its pace is that of a free core, not of a mean hour


class Pace:
    """The pace of one device by its anchor.

    Making it takes the device's locks where this machine was never measured.

    usual_ms: a step of the anchor when it was; None on a GPU, whose times are left as they are. Raises
        DeviceError.
    """

    def __init__(self, anchor: Anchor) -> None:
        self._anchor, self.usual_ms = anchor, usual_ms(anchor.device)

    def beside(self, run: Callable[[], float]) -> Callable[[], float]:
        """`run`, which returns an elapsed time in ms, at the usual pace.

        Whoever calls it, again and again, holds the exclusive lock.
        """
        usual = self.usual_ms
        if usual is None:
            return run
        anchor_ms: float | None = None  # after the call before, which is before this one

        def at_the_usual_pace() -> float:
            nonlocal anchor_ms
            before = _step_ms(self._anchor) if anchor_ms is None else anchor_ms
            ms, anchor_ms = run(), _step_ms(self._anchor)
            return ms * usual * 2 / (before + anchor_ms)

        return at_the_usual_pace


def usual_ms(device: Device) -> float | None:
    """What a step of the anchor took when this CPU was first measured with so many threads, now where it
    never was; None on a GPU.

    The caller holds none of the device's locks. Raises DeviceError where what was kept cannot be read or
    written.
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
