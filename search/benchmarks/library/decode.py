"""Benchmark: decoding of every published model in our kernels and in those of libraries, against the
memory's bandwidth.

Decoding moves all weights for each token, so the memory's bandwidth bounds its speed. What the host needs to
launch kernels comes on top, unless a CUDA graph replays them. The record says how far each model is from that
bound.

    frontrunner bench decode --device cuda:0

One row decodes with 8192 tokens of context, one with 160, and eight rows with 8192. A step has to move
`decode_bytes` (see `operators.cost`). Their share of the bandwidth is given twice: of the datasheet's, and
of a copy's, measured in the same run. `library_ms` is a graph of the same model whose steps are in the
kernels of libraries (see `operators.decoding`). State and weights are random, as values do not change what
a step costs. A graph's time is given only where its tokens are those of the eager steps.
"""

from typing import Any, NamedTuple

import torch
from rich.console import Console

from operators import registry
from operators.architecture import Architecture
from operators.backends import resolve
from operators.base import shipped
from operators.base.errors import BackendError
from operators.cost import cost
from operators.model import HybridLM
from profiler.device.ceilings import DATASHEET_BYTES_PER_S, copy_bytes_per_s
from profiler.device.device import Device, open_device
from profiler.device.lock import exclusive, shared
from profiler.measuring.decoder import Decoder, random_model
from profiler.timing import SamplingSettings, Timing, sample
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.tables import Column, by_model
from search.view.terminal_tables import show

OURS = ("tiny-hybrid",)  # shipped with the published models to try commands on, but not published
SEED = 0


class Case(NamedTuple):
    """Under which circumstances a model decodes.

    name: begins the names of its figures; empty for the main case.
    checked: tokens of the graph that are compared with those of eager steps.
    """

    name: str
    batch: int
    context: int
    checked: int


MAIN = Case("", 1, 8192, 512)
CASES = (MAIN, Case("short_", 1, 160, 64), Case("b8_", 8, 8192, 64))
_CHECKED_OF_LIBRARIES = 64
_REPLAYS, _EAGER_STEPS = 8, 2
_SETTINGS = SamplingSettings(warmup=3, min_samples=20, min_seconds=0.5, max_seconds=2.0)

_COLUMNS = {
    "eager [ms]": Column("eager_ms", ".2f"),
    "graph [ms]": Column("graph_ms", ".3f"),
    "IQR [ms]": Column("graph_iqr_ms", ".3f"),
    "libraries [ms]": Column("library_ms", ".3f"),
    "faster ×": Column("library_speedup", ".2f"),
    "GB a step": Column("decode_bytes", ".2f", 1e-9),
    "of datasheet": Column("datasheet_fraction", ".0%"),
    "of copy": Column("copy_fraction", ".0%"),
    "160 tokens [ms]": Column("short_graph_ms", ".3f"),
    "batch 8 [ms]": Column("b8_graph_ms", ".3f"),
    "batch 8 faster ×": Column("b8_library_speedup", ".2f"),
    "memory [GB]": Column("peak_memory_bytes", ".2f", 1e-9),
}


def decode_published(device: str, console: Console) -> Measured:
    """Times and shares of the bandwidth of every model, and the samples that they come from."""
    opened = open_device(device)
    figures: Figures = {
        "context_tokens": MAIN.context,
        "batch": MAIN.batch,
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
    arithmetic = cost(architecture, batch=MAIN.batch, context=MAIN.context, dtype=device.dtype)
    figures: Figures = {"params": arithmetic.params, "decode_bytes": arithmetic.decode_bytes}
    samples: dict[str, Any] = {}
    with torch.inference_mode():
        model = random_model(architecture, device, backend="auto", seed=SEED)
        samples["backends"] = model.backends
        for case in CASES:
            timings, temporaries = _timed(model, case, device)
            if case is MAIN:
                state_bytes = model.allocate_state(case.batch, case.context).bytes
                figures["peak_memory_bytes"] = arithmetic.param_bytes + state_bytes + temporaries
            _note(figures, samples, case.name, timings)
        ours = {case: figures.get(f"{case.name}graph_ms") for case in CASES}
        del model
        libraries = _of_libraries(architecture, device)
        for case in CASES:
            timings, _ = _timed(libraries, case._replace(checked=_CHECKED_OF_LIBRARIES), device, eager=False)
            _note(figures, samples, f"{case.name}library_", timings)
            library_ms, graph_ms = figures.pop(f"{case.name}library_graph_ms", None), ours[case]
            if library_ms is not None:
                figures[f"{case.name}library_ms"] = library_ms
            if library_ms is not None and graph_ms is not None:
                figures[f"{case.name}library_speedup"] = float(library_ms) / float(graph_ms)
    if "graph_ms" in figures:
        achieved = arithmetic.decode_bytes / float(figures["graph_ms"]) * 1e3
        figures["graph_speedup"] = float(figures["eager_ms"]) / float(figures["graph_ms"])
        figures["achieved_bytes_per_s"] = achieved
        for ceiling in ("datasheet", "copy"):
            if f"{ceiling}_bytes_per_s" in ceilings:
                figures[f"{ceiling}_fraction"] = achieved / float(ceilings[f"{ceiling}_bytes_per_s"])
    return figures, samples


def _of_libraries(architecture: Architecture, device: Device) -> HybridLM:
    """The model with the backends that `auto` takes without our kernels of decode steps."""
    named = {"head": "library"}
    for layer in architecture.layers:
        for name in registry.get(layer.operator).backends:
            try:
                resolve(layer.operator, name, layer.shape, device.torch_device, device.dtype)
            except BackendError:
                continue
            named[layer.operator] = name
            break
    return random_model(architecture, device, backend=named, seed=SEED)


def _timed(
    model: HybridLM, case: Case, device: Device, *, eager: bool = True
) -> tuple[dict[str, Timing | str], int]:
    """Timings of eager steps and of a graph's, or why the graph has none; and the bytes that a step needs
    for a while."""
    timings: dict[str, Timing | str] = {}
    with shared(device.label):
        decoder = Decoder(model, case.batch, case.context)
        same = _graph_equals_eager(decoder, min(case.checked, case.context))
        decoder.fill(decoder.state.capacity - 1, seed=SEED)
        temporaries = device.peak_memory(decoder.step_eagerly)

    def rewind() -> None:
        decoder.state.seek(decoder.state.capacity - 1)

    def sampled(step: Any, count: int) -> Timing:
        return sample(lambda: device.mean_time(step, before=rewind, count=count), settings=_SETTINGS)

    with exclusive(device.label):
        if eager and case == MAIN:
            timings["eager"] = sampled(decoder.step_eagerly, _EAGER_STEPS)
        timings["graph"] = (
            sampled(decoder.step, _REPLAYS)
            if same
            else f"{case.checked} tokens from the graph are not those of the eager steps"
        )
    return timings, temporaries


def _note(figures: Figures, samples: dict[str, Any], prefix: str, timings: dict[str, Timing | str]) -> None:
    """Writes the timings of a case down."""
    for name, timing in timings.items():
        if isinstance(timing, str):
            figures[f"{prefix}{name}_refused"] = timing
            continue
        figures |= {
            f"{prefix}{name}_ms": timing.median_ms,
            f"{prefix}{name}_iqr_ms": timing.iqr_ms,
            f"{prefix}{name}_n": timing.n,
        }
        samples |= {
            f"{prefix}{name}_ms": timing.samples_ms,
            f"{prefix}{name}_stopped_by": timing.stopped_by,
        }


def _graph_equals_eager(decoder: Decoder, count: int) -> bool:
    tokens = []
    for step in (decoder.step, decoder.step_eagerly):
        decoder.fill(decoder.state.capacity - count, seed=SEED)
        tokens.append(torch.stack([step().clone() for _ in range(count)]))
    return torch.equal(*tokens)


BENCHMARK = Benchmark(
    "decode",
    "decoding of every published model in our kernels and in libraries', against the memory's bandwidth",
    decode_published,
    gpu=True,
)
