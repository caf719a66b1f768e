"""The largest batch that fits into a device's memory at a context, and decoding there."""

from collections.abc import Callable
from dataclasses import dataclass
from gc import collect

import torch

from operators.cost import cost
from operators.model import HybridLM
from profiler.device.device import Device, memory_errors
from profiler.measuring.decoder import Decoder

PRECISION = 0.02  # how close, relative to it, the batch that is found is to the largest
# A CPU that runs out of memory is not told so, its processes are killed; and a batch beyond these tells
# nothing more of a model.
_SHARE = {"cuda": 1.0, "cpu": 0.5}
_RESERVE_BYTES = {"cuda": 1 << 29, "cpu": 0}  # what a graph and the driver take beside the allocator
_CAP = {"cuda": 65_536, "cpu": 256}
# Temporaries of a step are needed thrice: by the steps before the capture, by the graph, and a part of the
# allocator's rounding.
_TEMPORARIES = 3
_PROBE = 2


def largest(guess: int, upper: int, fits: Callable[[int], bool]) -> int:
    """The largest batch from 1 to `upper` that `fits`, to within PRECISION; 0 if none does.

    `guess` is tried first.
    """
    low, high, tried = 0, upper + 1, max(1, min(guess, upper))
    while low < high - 1:
        if fits(tried):
            low = tried
        else:
            high = tried
        if high - low <= max(1, PRECISION * high):
            break
        tried = (low + high) // 2
    return low


@dataclass(frozen=True)
class Room:
    """Batches between which the largest that fits must lie: `guess` by arithmetic and measured temporaries,
    `upper` by the state alone.
    """

    guess: int
    upper: int


def room(model: HybridLM, context: int, device: Device) -> Room:
    """From what one row needs and the device has free, the model being there already.

    Raises memory errors where no row fits.
    """
    kind = device.torch_device.type
    free = device.free_memory() * _SHARE[kind]
    row = max(1, cost(model.architecture, batch=1, context=context, dtype=device.dtype).state_bytes)
    if row > free:
        raise MemoryError(
            f"one row of {context} tokens needs {row / 1e9:.2f} GB of state, {free / 1e9:.2f} GB are free"
        )
    decoder = filled_decoder(model, min(_PROBE, int(free // row)), context, seed=0, graph=False)
    temporaries = device.peak_memory(decoder.step_eagerly) / decoder.tokens.shape[0]
    upper = max(1, min(_CAP[kind], int(free // row)))
    return Room(guess=max(1, min(upper, int(free // (row + _TEMPORARIES * temporaries)))), upper=upper)


def largest_decoder(model: HybridLM, context: int, device: Device, *, seed: int) -> Decoder:
    """A decoder of the largest batch that fits, its state full of random values, really allocated and
    stepped.

    The caller holds the device's exclusive lock. Raises MemoryError where not even one row fits.
    """
    release(device)
    between = room(model, context, device)
    release(device)
    kind, before = device.torch_device.type, device.free_memory()
    reserve = _RESERVE_BYTES[kind] + before * (1 - _SHARE[kind])

    def fits(batch: int) -> bool:
        found = _fits(model, batch, context, device, seed=seed, reserve=reserve)
        release(device)
        return found

    batch = largest(between.guess, between.upper, fits)
    if batch == 0:
        raise MemoryError(
            f"not even one row of {context} tokens can be decoded in {before / 1e9:.2f} GB of free memory"
        )
    return filled_decoder(model, batch, context, seed=seed)


def _fits(model: HybridLM, batch: int, context: int, device: Device, *, seed: int, reserve: float) -> bool:
    try:
        with memory_errors():
            decoder = filled_decoder(model, batch, context, seed=seed, graph=False)
            temporaries = device.peak_memory(decoder.step_eagerly)
            return device.free_memory() - reserve >= _TEMPORARIES * temporaries
    except (MemoryError, torch.OutOfMemoryError):
        return False


def filled_decoder(
    model: HybridLM, batch: int, context: int, *, seed: int, graph: bool | None = None
) -> Decoder:
    """A decoder at the last token of a full context, the state being random."""
    decoder = Decoder(model, batch, context, graph=graph)
    decoder.fill(decoder.state.capacity - 1, seed=seed)
    return decoder


def release(device: Device) -> None:
    """Frees what nobody refers to any more: decoders and their graphs are collected late."""
    collect()
    device.release_memory()
