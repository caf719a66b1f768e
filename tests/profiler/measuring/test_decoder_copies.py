"""How many copies of a model are timed, and what their time is."""

from typing import cast

import pytest
import torch

from operators import Architecture, HybridLM
from profiler.device.device import Device, open_device
from profiler.measuring import decoder_copies as module
from profiler.measuring.decoder import Decoder
from profiler.measuring.decoder_copies import copies, rewind, step_ms

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


def test_a_step_is_the_mean_over_the_copies_at_the_end_of_their_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = HybridLM(Architecture.from_shorthand("a f", width=64, vocabulary=64))
    decoders = [Decoder(model, 1, 8) for _ in range(2)]
    for decoder in decoders:
        rewind(decoder)
        assert decoder.state.lengths == [7]
    times = {id(decoder): ms for decoder, ms in zip(decoders, (1.0, 4.0), strict=True)}
    monkeypatch.setattr(module, "_step_ms", lambda decoder, device, count: times[id(decoder)])
    assert step_ms(decoders, open_device("cpu"), count=3) == 2.5
    monkeypatch.undo()
    assert step_ms(decoders, open_device("cpu"), count=3) > 0
    assert [decoder.state.lengths for decoder in decoders] == [[8], [8]]
