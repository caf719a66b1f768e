"""Several copies of the same decoder, because the place in memory changes the time of a step.

The time of a step depends on where weights and state lie in a GPU's memory. On an H100 it differs by about a
percent, differently in every process. It stays the same as long as they lie there, so that no number of
samples removes it. Therefore a step is timed in several places.
"""

from collections.abc import Sequence
from statistics import fmean

from profiler.device.device import Device
from profiler.measuring.decoder import Decoder

_MOST = 5
# The size of all copies together (bytes). Large models are spread over many places already.
_BYTES = 2_500_000_000


def copies(bytes_each: int, device: Device) -> int:
    """How many copies of a model and its states are timed; 1 on a CPU.

    bytes_each: the size of one model with its states
    """
    if device.torch_device.type == "cpu":
        return 1
    return max(1, min(_MOST, -(-_BYTES // bytes_each), device.free_memory() // (4 * bytes_each)))


def step_ms(decoders: Sequence[Decoder], device: Device, *, count: int) -> float:
    """The mean time of a step over all decoders, each at the end of its full context (ms).

    count: how many steps each decoder makes
    """
    return fmean(_step_ms(decoder, device, count) for decoder in decoders)


def _step_ms(decoder: Decoder, device: Device, count: int) -> float:
    return device.mean_time(decoder.step, before=lambda: rewind(decoder), count=count)


def rewind(decoder: Decoder) -> None:
    """Sets the full state back by one token, so that the next step is at the end of the context again."""
    decoder.state.seek(decoder.state.capacity - 1)
