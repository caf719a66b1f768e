"""Decoding of every published model for one row with 8k tokens of context: eager, from a CUDA graph, and against the memory's bandwidth.

A step has to move `decode_bytes` (see `profiler.cost`): their share of the bandwidth, by the datasheet and of a copy measured in the same
run, says how much of the time is spent on memory at all. State and weights are random: values do not change what a step costs.
A graph's time is given only where its tokens are those of the eager steps.
"""

from typing import Any

import torch
from rich.console import Console

from operators.architecture import Architecture, shipped_names
from operators.errors import DeviceError
from profiler.bandwidth import DATASHEET_BYTES_PER_S, copy_bytes_per_s
from profiler.cost import cost
from profiler.decoder import Decoder, random_model
from profiler.device import Device, open_device
from profiler.lock import exclusive, shared
from profiler.timing import SamplingSettings, Timing, sample
from search.terminal_tables import Sheet, sheet, show

OURS = ("tiny-hybrid",)  # lies among the published ones to try commands on
BATCH, CONTEXT, SEED = 1, 8192, 0
CHECKED_TOKENS = 64
_REPLAYS, _EAGER_STEPS = 8, 2
_SETTINGS = SamplingSettings(warmup=3, min_samples=20, min_seconds=0.5, max_seconds=2.0)

Figures = dict[str, float | int | str]


def decode_published(device: str, console: Console) -> tuple[Figures, list[dict[str, Any]]]:
    """Figures and samples, a line of the table for each model on the way. Raises DeviceError without a GPU."""
    opened = open_device(device)
    if opened.torch_device.type != "cuda":
        raise DeviceError(
            f"device {device}: the benchmark decode compares CUDA graphs with eager steps and needs a GPU, as in cuda:0"
        )
    figures: Figures = {
        "context_tokens": CONTEXT,
        "batch": BATCH,
        "copy_bytes_per_s": copy_bytes_per_s(opened),
    }
    if opened.name in DATASHEET_BYTES_PER_S:
        figures["datasheet_bytes_per_s"] = DATASHEET_BYTES_PER_S[opened.name]
    samples = []
    for model in shipped_names():
        if model in OURS:
            continue
        found, sampled = _decode(Architecture.load(model), opened, figures)
        figures |= {f"{model}.{name}": value for name, value in found.items()}
        samples.append({"model": model, **sampled})
        console.print(
            f"{model}: {', '.join(f'{name} {value}' for name, value in found.items())}",
            soft_wrap=True,
            highlight=False,
        )
    show(console, table(figures))
    return figures, samples


def table(figures: Figures) -> Sheet:
    """The figures as they are read: a line for each model."""
    columns = {
        "eager [ms]": ("eager_ms", ".2f"),
        "graph [ms]": ("graph_ms", ".3f"),
        "IQR [ms]": ("graph_iqr_ms", ".3f"),
        "faster ×": ("graph_speedup", ".1f"),
        "GB a step": ("decode_bytes", ".2f"),
        "of datasheet": ("datasheet_fraction", ".0%"),
        "of copy": ("copy_fraction", ".0%"),
        "memory [GB]": ("peak_memory_bytes", ".2f"),
    }
    rows = []
    for model in dict.fromkeys(name.rpartition(".")[0] for name in figures if "." in name):
        cells = []
        for name, form in columns.values():
            value = figures.get(f"{model}.{name}")
            scale = 1e-9 if name.endswith("_bytes") else 1
            cells.append("" if not isinstance(value, int | float) else format(value * scale, form))
        rows.append((model, *cells))
    return sheet(("model", *columns), rows, words=("model",))


def _decode(architecture: Architecture, device: Device, ceilings: Figures) -> tuple[Figures, dict[str, Any]]:
    """Figures of one model, and what they come from."""
    arithmetic = cost(architecture, batch=BATCH, context=CONTEXT, dtype=device.dtype)
    with torch.inference_mode():
        with shared(device.label):
            decoder = Decoder(random_model(architecture, device, backend="auto", seed=SEED), BATCH, CONTEXT)
            same = _graph_equals_eager(decoder)
            decoder.fill(decoder.state.capacity - 1, seed=SEED)
            temporaries = device.peak_memory(decoder.step_eagerly)
        with exclusive(device.label):
            eager, graph = _timings(decoder, device)
    figures: Figures = {
        "params": arithmetic.params,
        "decode_bytes": arithmetic.decode_bytes,
        "peak_memory_bytes": arithmetic.param_bytes + decoder.state.bytes + temporaries,
        "eager_ms": eager.median_ms,
        "eager_iqr_ms": eager.iqr_ms,
        "eager_n": eager.n,
    }
    if same:
        achieved = arithmetic.decode_bytes / graph.median_ms * 1e3
        figures |= {
            "graph_ms": graph.median_ms,
            "graph_iqr_ms": graph.iqr_ms,
            "graph_n": graph.n,
            "graph_speedup": eager.median_ms / graph.median_ms,
            "achieved_bytes_per_s": achieved,
        }
        for ceiling in ("datasheet", "copy"):
            if f"{ceiling}_bytes_per_s" in ceilings:
                figures[f"{ceiling}_fraction"] = achieved / float(ceilings[f"{ceiling}_bytes_per_s"])
    else:
        figures["graph_refused"] = f"{CHECKED_TOKENS} tokens from the graph are not those of the eager steps"
    return figures, {
        "backends": decoder.model.backends,
        "eager_ms": eager.samples_ms,
        "eager_stopped_by": eager.stopped_by,
        "graph_ms": graph.samples_ms,
        "graph_stopped_by": graph.stopped_by,
    }


def _graph_equals_eager(decoder: Decoder) -> bool:
    found = []
    for step in (decoder.step, decoder.step_eagerly):
        decoder.fill(decoder.state.capacity - CHECKED_TOKENS, seed=SEED)
        found.append(torch.stack([step().clone() for _ in range(CHECKED_TOKENS)]))
    return torch.equal(*found)


def _timings(decoder: Decoder, device: Device) -> tuple[Timing, Timing]:
    """Of an eager step and of a replay, each as the last token of the whole context."""

    def rewind() -> None:
        decoder.state.seek(decoder.state.capacity - 1)

    eager = sample(
        lambda: device.mean_time(decoder.step_eagerly, before=rewind, count=_EAGER_STEPS), settings=_SETTINGS
    )
    graph = sample(lambda: device.mean_time(decoder.step, before=rewind, count=_REPLAYS), settings=_SETTINGS)
    return eager, graph
