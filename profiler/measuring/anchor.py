"""The anchor model: a fixed architecture, timed around every measurement to show a change of the device."""

from functools import cache
from time import perf_counter

import torch

from operators import Architecture
from operators.cost import cost
from profiler.device.device import Device
from profiler.measuring.decoder import Decoder, random_model
from profiler.measuring.decoder_copies import copies, step_ms
from profiler.timing import SamplingSettings, Timing, sample

CONTEXT = 1024
# On a GPU the anchor is so large that its weights stream from memory, as those of candidates do.
# On a CPU it is so small that it costs little.
_SIZES = {
    "cuda": {"width": 2048, "vocabulary": 32_768, "layers": "a f " * 4},
    "cpu": {"width": 128, "vocabulary": 4096, "layers": "a f a f"},
}
# Steps in one sample.
_STEPS = {"cuda": 4, "cpu": 2}
# An idle GPU takes that long to raise its clocks (s).
_WARM_UP_S = {"cuda": 0.2, "cpu": 0.0}
_SETTINGS = SamplingSettings(warmup=2, min_samples=10, min_seconds=0.05, max_seconds=0.2)


@cache
def anchor_architecture(kind: str) -> Architecture:
    """The anchor of a kind of device (`cuda` or `cpu`).

    After a change to it, ratios to the anchor cannot be compared with older ones.
    """
    return Architecture.model_validate({"name": f"anchor-{kind}", **_SIZES[kind]})


class Anchor:
    """The anchor model on one device, ready to decode.

    Building it loads the device: the caller holds its shared lock.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        kind = device.torch_device.type
        self._steps, self._warm_up_s = _STEPS[kind], _WARM_UP_S[kind]
        architecture = anchor_architecture(kind)
        found = cost(architecture, batch=1, context=CONTEXT, dtype=device.dtype)
        with torch.inference_mode():
            self._decoders = [
                Decoder(random_model(architecture, device, backend="auto", seed=0), 1, CONTEXT)
                for _ in range(copies(found.param_bytes + found.state_bytes, device))
            ]

    def warm_up(self) -> None:
        """Keeps an idle device busy until its clocks are those of a busy one.

        The caller holds the device's exclusive lock.
        """
        started = perf_counter()
        while perf_counter() - started < self._warm_up_s:
            self._steps_ms(self._steps)

    def time(self) -> Timing:
        """Times of one decode step with a full context.

        The caller holds the device's exclusive lock.
        """
        return sample(
            lambda: self._steps_ms(self._steps),
            settings=_SETTINGS,
            runs=self._steps * len(self._decoders),
            lasting=self.device.torch_device.type == "cpu",
        )

    def step(self) -> float:
        """The time of one step (ms).

        The caller holds the device's exclusive lock.
        """
        return self._steps_ms(1)

    def _steps_ms(self, count: int) -> float:
        with torch.inference_mode():
            return step_ms(self._decoders, self.device, count=count)
