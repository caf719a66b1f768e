"""The clock of a GPU's multiprocessors (SM), as one of them counts it.

The driver tells a clock that it sampled at some moment before. Here a kernel of 50 µs compares the cycles of
one multiprocessor with the GPU's timer, just before and just after what is measured.
"""

import importlib
from collections.abc import Callable
from functools import partial

import torch

from operators.base.errors import flat

# The change of the clock that is worth a warning, relative to the clock before. The anchor may drift as much,
# but it reads its weights from memory, so that it hardly shows this clock. A GPU changes the clock in steps
# of 15 MHz: this is more than one step on an H100, which runs at up to 1980 MHz.
MOST_CHANGE = 0.01


def sm_clock(device: torch.device) -> tuple[Callable[[], float | None], str]:
    """A function that counts the clock (MHz), and why it is not known; empty where it is.

    The function takes about 0.1 ms. It waits for the device, whose lock the caller holds. Where the clock is
    not known the function returns None.
    """
    if device.type != "cuda":
        return _nothing, f"needs a CUDA device, got {device}"
    try:
        kernel = importlib.import_module("operators.kernels.multiprocessor_clock")
    except ImportError as error:
        return _nothing, flat(error)
    return partial(kernel.megahertz, kernel.prepare(device)), ""


def _nothing() -> None:
    return None


def clock_moved(before: float | None, after: float | None) -> str:
    """A warning where the clock moved by more than MOST_CHANGE; empty where it did not or is not known.

    before, after: the measurement (MHz)
    """
    if before is None or after is None or abs(after - before) <= MOST_CHANGE * before:
        return ""
    return (
        f"SM clock: {before:.0f} MHz before and {after:.0f} MHz after, "
        f"expected a change of at most {MOST_CHANGE:.0%}"
    )
