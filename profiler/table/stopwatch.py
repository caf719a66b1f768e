"""Times a model at one point: reading a prompt, or a decode step at the end of a context.

Both are timed as `profiler.measuring.measure` does. Every step sees the same context, with random state and
tokens. A prompt is read into an empty state.
"""

from math import ceil

import torch

from operators.model import HybridLM
from profiler.device.device import Device
from profiler.measuring.decoder import Decoder, Prompt
from profiler.table.parts import Point

# Shorter steps are gathered into one sample (ms).
_SAMPLE_MS = 2.0


class Stopwatch:
    """A model ready to be timed.

    Building it loads the device: the caller holds the shared lock while building, and the exclusive lock
    while timing. Both are done under `torch.inference_mode`.

    Raises MemoryError or torch.OutOfMemoryError where memory runs out.
    """

    def __init__(self, model: HybridLM, point: Point, device: Device) -> None:
        self._device, self._phase = device, point.phase
        # A graph holds a decode step only: where no step is timed, no graph is captured.
        self._decoder = Decoder(
            model, point.batch, point.context, graph=None if point.phase == "decode" else False
        )
        random = torch.Generator(device.torch_device).manual_seed(0)
        self._steps = 1
        if point.phase == "decode":
            self._decoder.fill(self._decoder.state.capacity, seed=0)
            self._steps = max(1, ceil(_SAMPLE_MS / min(self.elapsed() for _ in range(2))))
        else:
            tokens = torch.empty(point.batch, point.context, dtype=torch.int64, device=device.torch_device)
            self._prompt = Prompt(
                self._decoder, tokens.random_(model.architecture.vocabulary, generator=random)
            )

    def elapsed(self) -> float:
        """The time of one decode step, or from an empty state to the first token after the prompt (ms)."""
        if self._phase == "decode":
            return self._device.mean_time(self._decoder.step, before=self._rewind, count=self._steps)
        self._decoder.reset()
        return self._device.timed(self._prompt.read)

    def _rewind(self) -> None:
        self._decoder.state.seek(self._decoder.state.capacity - 1)
