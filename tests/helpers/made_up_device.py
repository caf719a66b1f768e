"""A device whose times are known, to test the latency table; the fixture `made_up` puts it in place."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from operators import Architecture
from operators.architecture import Layer
from profiler.device.device import Device, open_device
from profiler.table.parts import Point
from profiler.timing import Timing

WINDOW = 64
DECODE, PREFILL = Point("decode", 1, 256), Point("prefill", 1, 256)


def hybrid(
    text: str = "a f m f f a m f", width: int = 64, window: int | None = None, **rest: object
) -> Architecture:
    genes = {"attention": {"head_dim": 32, "window": window}}
    return Architecture.from_shorthand(text, width=width, vocabulary=512, genes=genes, **rest)


def layer_ms(layer: Layer, architecture: Architecture, point: Point) -> float:
    """Returns what a layer costs on the made-up device (ms); every part of the table's key changes it."""
    tokens = point.context + architecture.meta_tokens
    base = {"attention": 0.3, "mamba2": 0.21, "swiglu": 0.11}[
        layer.operator
    ] * architecture.width / 64 + 0.01 * point.batch
    base += (
        0.02 * (layer.norm == "layernorm")
        + 0.03 * (layer.norm_position == "after")
        + 0.04 * (architecture.rope is None)
    )
    if layer.operator == "swiglu":
        base *= layer.shape.hidden / 128  # type: ignore[attr-defined]
    if point.phase == "prefill":
        return base * tokens / 7
    if layer.operator == "attention":
        base += 0.002 * min(tokens, layer.shape.window or tokens)  # type: ignore[attr-defined]
    return base


def rest_ms(architecture: Architecture, point: Point) -> float:
    tokens = point.context + architecture.meta_tokens if point.phase == "prefill" else 0
    return 1e-4 * architecture.vocabulary + 0.05 * (not architecture.tied_embeddings) + 1e-3 * tokens


def model_ms(architecture: Architecture, point: Point) -> float:
    return rest_ms(architecture, point) + sum(
        layer_ms(layer, architecture, point) for layer in architecture.layers
    )


class MadeUpStopwatch:
    """Replaces the timing of models: a model's time is exactly the sum of its layers and its rest."""

    timed = 0

    def __init__(self, model: Architecture, point: Point, device: Device) -> None:
        self.ms = model_ms(model, point)

    def elapsed(self) -> float:
        MadeUpStopwatch.timed += 1
        return self.ms


class MadeUpAnchor:
    """The anchor model of a device whose clocks change.

    It returns its `times` one after the other, then the last one for ever.
    """

    times: ClassVar[list[float]] = [1.0]

    def __init__(self, device: Device) -> None:
        self._times = list(MadeUpAnchor.times)

    def time(self) -> Timing:
        ms = self._times.pop(0) if len(self._times) > 1 else self._times[0]
        return Timing(median_ms=ms, iqr_ms=0, p90_ms=ms, n=10, stopped_by="precision", samples_ms=(ms,) * 10)


def seeming_gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    """Returns a device that presents itself as an H100; what would run there is made up."""
    gpu = open_device("cpu")
    gpu.torch_device, gpu.dtype = torch.device("cuda"), torch.bfloat16
    properties = SimpleNamespace(L2_cache_size=50 << 20, total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    return gpu


class MadeUpPace:
    """The pace of a device whose speed never changes."""

    usual_ms = 1.0

    def __init__(self, anchor: MadeUpAnchor) -> None:
        pass

    def beside(self, run: Callable[[], float]) -> Callable[[], float]:
        return run
