"""Benchmark: decoding of every published model, eager and from a CUDA graph, against the memory's bandwidth.

Decoding moves all weights for each token, so the memory's bandwidth bounds its speed. What the host needs to
launch kernels comes on top, unless a CUDA graph replays them. The record says how far each model is from that
bound.

    frontrunner bench decode --device cuda:0

One row decodes with 8192 tokens of context. A step has to move `decode_bytes` (see `operators.cost`). Their
share of the bandwidth is given twice: of the datasheet's, and of a copy's, measured in the same run. State
and weights are random, as values do not change what a step costs. A graph's time is given only where its
tokens are those of the eager steps.
"""

from typing import Any

import torch
from rich.console import Console

from operators.architecture import Architecture
from operators.base import shipped
from operators.cost import cost
from profiler.device.ceilings import DATASHEET_BYTES_PER_S, copy_bytes_per_s
from profiler.device.device import Device, open_device
from profiler.device.lock import exclusive, shared
from profiler.measuring.decoder import Decoder, random_model
from profiler.timing import SamplingSettings, Timing, sample
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.tables import Column, by_model
from search.view.terminal_tables import show

OURS = ("tiny-hybrid",)  # shipped with the published models to try commands on, but not published
BATCH, CONTEXT, SEED = 1, 8192, 0
CHECKED_TOKENS = 64
_REPLAYS, _EAGER_STEPS = 8, 2
_SETTINGS = SamplingSettings(warmup=3, min_samples=20, min_seconds=0.5, max_seconds=2.0)

_COLUMNS = {
    "eager [ms]": Column("eager_ms", ".2f"),
    "graph [ms]": Column("graph_ms", ".3f"),
    "IQR [ms]": Column("graph_iqr_ms", ".3f"),
    "faster ×": Column("graph_speedup", ".1f"),
    "GB a step": Column("decode_bytes", ".2f", 1e-9),
    "of datasheet": Column("datasheet_fraction", ".0%"),
    "of copy": Column("copy_fraction", ".0%"),
    "memory [GB]": Column("peak_memory_bytes", ".2f", 1e-9),
}


def decode_published(device: str, console: Console) -> Measured:
    """Times and shares of the bandwidth of every model, and the samples that they come from."""
    opened = open_device(device)
    figures: Figures = {
        "context_tokens": CONTEXT,
        "batch": BATCH,
        "copy_bytes_per_s": copy_bytes_per_s(opened),
    }
    if opened.name in DATASHEET_BYTES_PER_S:
        figures["datasheet_bytes_per_s"] = DATASHEET_BYTES_PER_S[opened.name]
    samples = []
    for model in (name for name in shipped.names("architecture") if name not in OURS):
        of_model, sampled = _decode(Architecture.load(model), opened, figures)
        figures |= {f"{model}.{name}": value for name, value in of_model.items()}
        samples.append({"model": model, **sampled})
        shown = ", ".join(f"{name} {value}" for name, value in of_model.items())
        console.print(f"{model}: {shown}", soft_wrap=True, highlight=False)
    show(console, by_model(figures, [sample["model"] for sample in samples], _COLUMNS))
    return Measured(figures, samples)


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
    tokens = []
    for step in (decoder.step, decoder.step_eagerly):
        decoder.fill(decoder.state.capacity - CHECKED_TOKENS, seed=SEED)
        tokens.append(torch.stack([step().clone() for _ in range(CHECKED_TOKENS)]))
    return torch.equal(*tokens)


def _timings(decoder: Decoder, device: Device) -> tuple[Timing, Timing]:
    """Of an eager step and of a replay, each as the last token of the whole context."""

    def rewind() -> None:
        decoder.state.seek(decoder.state.capacity - 1)

    eager = sample(
        lambda: device.mean_time(decoder.step_eagerly, before=rewind, count=_EAGER_STEPS), settings=_SETTINGS
    )
    graph = sample(lambda: device.mean_time(decoder.step, before=rewind, count=_REPLAYS), settings=_SETTINGS)
    return eager, graph


BENCHMARK = Benchmark(
    "decode",
    "decoding of every published model, eager and from a CUDA graph, against the memory's bandwidth",
    decode_published,
    gpu=True,
)
