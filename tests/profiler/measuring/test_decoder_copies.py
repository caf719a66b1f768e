"""How many copies of a model are timed, and what their time is."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch

from operators import Architecture, HybridLM
from profiler.device.device import Device, open_device
from profiler.measuring.decoder import Decoder
from profiler.measuring.decoder_copies import copies, step_ms

GB = 10**9


class Gpu:
    torch_device = torch.device("cuda", 0)

    def __init__(self, free: int) -> None:
        self._free = free

    def free_memory(self) -> int:
        return self._free


@pytest.mark.parametrize(
    ("each", "free", "expected"),
    [
        (GB // 10, 80 * GB, 5),
        (GB, 80 * GB, 3),
        (2 * GB, 80 * GB, 2),
        (3 * GB, 80 * GB, 1),
        (60 * GB, 80 * GB, 1),
        (GB, 8 * GB, 2),  # a quarter of what is free, no more
        (GB, GB // 2, 1),
    ],
)
def test_small_models_are_timed_in_several_places(each: int, free: int, expected: int) -> None:
    assert copies(each, cast(Device, Gpu(free))) == expected


def test_a_cpu_times_one() -> None:
    assert copies(1000, open_device("cpu")) == 1


class Clock:
    """A device on which the steps of one copy take 1 ms each and those of the next 4 ms; notes what each call
    did.
    """

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders, self._times = decoders, iter((1.0, 4.0))
        self.lengths: list[list[int]] = []

    def mean_time(self, run: Callable[[], Any], *, before: Callable[[], Any], count: int) -> float:
        for _ in range(count):
            before()
            run()
            self.lengths.append([length for decoder in self._decoders for length in decoder.state.lengths])
        return next(self._times)


def test_a_step_is_the_mean_over_the_copies_at_the_end_of_their_context() -> None:
    model = HybridLM(Architecture.from_shorthand("a f", width=64, vocabulary=64))
    decoders = [Decoder(model, 1, 8) for _ in range(2)]
    decoders[1].state.seek(3)
    clock = Clock(decoders)
    assert step_ms(decoders, cast(Device, clock), count=2) == 2.5
    assert clock.lengths == [
        [8, 3],
        [8, 3],
        [8, 8],
        [8, 8],
    ]  # a full context holds 8 tokens; the last is the step's
