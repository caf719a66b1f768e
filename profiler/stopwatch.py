"""Times a model at one point: reading a prompt, or a decode step at the end of a context.

Decoding is timed as `profiler.measure` does: every step sees the same context, with state and tokens that are random.
"""

from math import ceil
from time import perf_counter
from typing import NamedTuple

import torch

from operators.model import HybridLM
from profiler.decoder import Decoder
from profiler.device import Device
from profiler.table_parts import Point

_SAMPLE_MS = 2.0  # steps shorter than this are gathered into one sample
_CYCLES_PER_MS = 2e6  # of a GPU's clock, rather too many: they are slept
_LONGEST_SLEEP_MS = 200.0


class Work(NamedTuple):
    """ms: until the device was done, counted from when it could begin. host_ms: for which the host was busy launching it (0: not apart)."""

    ms: float
    host_ms: float = 0.0


class Stopwatch:
    """A model ready to be timed. Building it loads the device: hold its shared lock, and the exclusive one while timing.

    Both are done under `torch.inference_mode`. Raises what running out of memory raises.
    """

    def __init__(self, model: HybridLM, point: Point, device: Device) -> None:
        self._device, self._phase = device, point.phase
        # A graph holds a decode step only: where none is timed, none is captured.
        self._decoder = Decoder(model, point.batch, point.context, graph=None if point.phase == "decode" else False)
        random = torch.Generator(device.torch_device).manual_seed(0)
        if point.phase == "decode":
            for layer in self._decoder.state.layers:
                for tensor in layer.values():
                    tensor.normal_(generator=random)
            self._decoder.tokens.random_(model.architecture.vocabulary, generator=random)
        else:
            tokens = torch.empty(point.batch, point.context, dtype=torch.int64, device=device.torch_device)
            self._prompt = tokens.random_(model.architecture.vocabulary, generator=random)
        self._steps = 1
        self._steps = max(1, ceil(_SAMPLE_MS / min(self.elapsed() for _ in range(2)))) if point.phase == "decode" else 1
        self._sleep_ms = 0.0

    def elapsed(self) -> float:
        """Time in ms as one waits for it: of one decode step, or from an empty state to the first token after the prompt."""
        if self._phase == "decode":
            return self._device.mean_time(self._decoder.step, before=self._rewind, count=self._steps)
        self._decoder.reset()
        return self._device.timed(self._read)

    def work(self) -> Work:
        """The same, but of reading a prompt on a GPU what it costs the device and what it costs the host, each as if it never waited."""
        if self._phase == "decode" or self._device.torch_device.type != "cuda":
            return Work(self.elapsed())
        self._decoder.reset()
        self._device.synchronize()
        with torch.cuda.device(self._device.torch_device):
            # The device sleeps while the host launches everything; then it works without a gap.
            torch.cuda._sleep(int(self._sleep_ms * _CYCLES_PER_MS))
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            began = perf_counter()
            self._read()
            host_ms = (perf_counter() - began) * 1e3
            end.record()
            end.synchronize()
        self._sleep_ms = min(_LONGEST_SLEEP_MS, max(self._sleep_ms, 1.2 * host_ms))
        return Work(float(start.elapsed_time(end)), host_ms)

    def _read(self) -> None:
        self._decoder.prefill(self._prompt)

    def _rewind(self) -> None:
        self._decoder.state.seek(self._decoder.state.capacity - 1)
