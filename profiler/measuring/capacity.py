"""The largest batch that fits into a device's memory at a context, and decoding at that batch."""

from collections.abc import Callable
from dataclasses import dataclass
from gc import collect

import torch

from operators.cost import cost
from operators.model import HybridLM
from profiler.device.device import Device
from profiler.device.memory import memory_errors
from profiler.measuring.decoder import Decoder

# How close the batch found is to the largest, relative to it.
PRECISION = 0.02
# The share of the free memory that is used. A CPU that runs out of memory raises no error: the kernel kills
# the process.
_SHARE = {"cuda": 1.0, "cpu": 0.5}
# What a graph and the driver take besides the allocator (bytes).
_RESERVE_BYTES = {"cuda": 1 << 29, "cpu": 0}
# The largest batch that is tried. Larger batches show nothing more of a model.
_CAP = {"cuda": 65_536, "cpu": 256}
# A step's temporaries are counted three times: for the steps before the capture, for the graph, and for the
# part that the allocator's rounding takes.
_TEMPORARIES = 3
# Rows of the batch whose temporaries are measured for the guess.
_PROBE = 2


def largest(guess: int, upper: int, fits: Callable[[int], bool]) -> int:
    """The largest batch from 1 to `upper` that fits, to within PRECISION; 0 if none fits.

    guess: the batch to try first
    upper: the largest batch to try
    fits: whether a batch fits
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
    """The range in which the largest batch that fits must lie.

    guess: the batch that fits by arithmetic and measured temporaries
    upper: the batch whose state alone fits
    """

    guess: int
    upper: int


def room(model: HybridLM, context: int, device: Device) -> Room:
    """The range of the largest batch, from what one row needs and what the device has free.

    The model is on the device already.

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
    """A decoder of the largest batch that fits, with a full context of random values in its state.

    The batches tried are really allocated and stepped. The caller holds the device's exclusive lock.

    Raises MemoryError where not even one row fits.
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
    """A decoder at the last token of a full context, with random values in its state."""
    decoder = Decoder(model, batch, context, graph=graph)
    decoder.fill(decoder.state.capacity - 1, seed=seed)
    return decoder


def release(device: Device) -> None:
    """Frees memory that nothing refers to: decoders and their graphs are collected late."""
    collect()
    device.release_memory()
