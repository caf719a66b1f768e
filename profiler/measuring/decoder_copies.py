"""The same decoder several times over.

Where weights and state come to lie in a GPU's memory changes the time of a step, by about a percent on an
H100 and differently in every
process, and stays as it is for as long as they lie there: no number of samples takes it away. So a step is
timed in several places.
"""

from collections.abc import Sequence
from statistics import fmean

from profiler.device.device import Device
from profiler.measuring.decoder import Decoder

_MOST = 5
_BYTES = 2_500_000_000  # of all copies together: large models are spread over many places already


def copies(bytes_each: int, device: Device) -> int:
    """How many copies of a model and its states, which take so many bytes, are timed. On a CPU it is one."""
    if device.torch_device.type == "cpu":
        return 1
    return max(1, min(_MOST, -(-_BYTES // bytes_each), device.free_memory() // (4 * bytes_each)))


def step_ms(decoders: Sequence[Decoder], device: Device, *, count: int) -> float:
    """Mean time of a step of each decoder at the end of its full context, `count` steps each."""
    return fmean(_step_ms(decoder, device, count) for decoder in decoders)


def _step_ms(decoder: Decoder, device: Device, count: int) -> float:
    return device.mean_time(decoder.step, before=lambda: rewind(decoder), count=count)


def rewind(decoder: Decoder) -> None:
    """Sets the full state back by one token, so that the next step is at the end of the context again."""
    decoder.state.seek(decoder.state.capacity - 1)
