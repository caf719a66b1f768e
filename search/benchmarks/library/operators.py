"""Benchmark: every operator with each of its backends, against what the device can do.

Architectures are made of operators, so an operator that runs far below the device's limits is where time can
be won. Times are a forward, a forward with a backward, and one decode step.

    frontrunner bench operators --device cuda:0

What is timed is one operator of width 2048 at its default shape, bfloat16 on a GPU, with random weights and
inputs. A forward reads whole sequences. Its FLOPs are the operator's own count; with the backward pass they
are three times as many. A decode step reads one token a row with a state that holds `context` tokens. On a
GPU it is a CUDA graph's replay after the L2 cache was overwritten. Its bytes are the weights and the state,
each moved once (recurrent state twice). The limits are a copy within the memory and a matrix product, both
measured in the run.

A backend whose results differ from the reference's by more than the bounds of `operators.agreement` gets no
figures, but the reason.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from operators import registry
from operators.agreement import agreement
from operators.architecture import Architecture, Layer
from operators.backends import reason_against, resolve
from operators.base.errors import flat
from operators.base.graph import captured
from operators.operator import OperatorModule, State
from profiler.device.ceilings import copy_bytes_per_s, matrix_product_flops_per_s
from profiler.device.device import Device, open_device
from profiler.device.lock import exclusive
from profiler.kernels.warm import Job, Workload, jobs, warm
from profiler.timing import SamplingSettings, sample
from search.benchmarks.benchmark import Benchmark, Figures, Measured

WIDTH = 2048
CONTEXTS = (4096, 32_768)
BATCHES = (1, 64)
CHECKED_TOKENS = 520  # more than two chunks of every kernel
# The reference exists to be compared with; timing it on more than this would take most of the run.
REFERENCE_TOKENS = 4096
# Above this many tokens at once, activations and what the backward pass keeps fit on no device.
LARGEST_FORWARD, LARGEST_BACKWARD = 262_144, 65_536
FLUSHED_BYTES = 2**28
# Enough to compile the kernels of every size that is timed, in parallel and before the device is held alone.
WORKLOAD = Workload(training=((1, CHECKED_TOKENS),), decoding=((1, CHECKED_TOKENS),))
SETTINGS = SamplingSettings(warmup=1, min_samples=5, min_seconds=0.03, max_seconds=0.15)


@dataclass(frozen=True)
class Case:
    """One operator with one backend on one device."""

    name: str
    backend: str
    device: Device
    architecture: Architecture

    @property
    def layer(self) -> Layer:
        return self.architecture.layers[0]

    def built(self) -> OperatorModule:
        layer, device = self.layer, self.device
        kernels = resolve(self.name, self.backend, layer.shape, device.torch_device, device.dtype).kernels
        with torch.device(device.torch_device):
            module = registry.get(self.name).build(self.architecture, layer.shape, kernels)
        return module.to(device.torch_device, device.dtype)

    def input(self, *shape: int) -> Tensor:
        return torch.randn(*shape, WIDTH, device=self.device.torch_device, dtype=self.device.dtype)


def operators_and_backends(device: str, console: Console) -> Measured:
    """Milliseconds of everything that was timed, and a row for that and for everything that could not be."""
    opened = open_device(device)
    rows: list[dict[str, Any]] = []
    compiled = list(warm([job for case in cases(opened) for job in _jobs(case)]))
    console.print(f"compiled in {max((done.seconds for done in compiled), default=0.0):.0f} s")
    figures: Figures = {"copy_bytes_per_s": copy_bytes_per_s(opened)}
    with exclusive(device):
        figures["matrix_product_flops_per_s"] = matrix_product_flops_per_s(opened)
        console.print(
            f"copy {figures['copy_bytes_per_s']:.3g} bytes/s, "
            f"matrix product {figures['matrix_product_flops_per_s']:.3g} FLOP/s"
        )
        for case in cases(opened):
            began, case_rows = perf_counter(), _rows(case, figures)
            _free()
            rows += case_rows
            what = (
                case_rows[0]["reason"]
                if len(case_rows) == 1
                else f"{sum('ms' in row for row in case_rows)} of {len(case_rows)} measured"
            )
            console.print(
                f"{case.name:<16}{case.backend:<15}{perf_counter() - began:6.1f} s  {what}", soft_wrap=True
            )
    for row in rows:
        if "ms" in row:
            label = ".".join(str(row[key]) for key in ("operator", "backend", "what"))
            figures[f"{label}@b{row['batch']}.c{row['context']}_ms"] = row["ms"]
    return Measured(figures, rows)


def cases(device: Device) -> list[Case]:
    all_cases = []
    for name in registry.names():
        operator = registry.get(name)
        architecture = Architecture(
            width=WIDTH, vocabulary=2, layers=(Layer(operator=name, shape=operator.shape.make(WIDTH)),)
        )
        all_cases += [Case(name, backend, device, architecture) for backend in operator.backends]
    return all_cases


def _jobs(case: Case) -> list[Job]:
    return (
        []
        if case.backend == "reference"
        else jobs([case.architecture], WORKLOAD, case.device.label, case.backend)
    )


def _rows(case: Case, figures: dict[str, Any]) -> list[dict[str, Any]]:
    layer, device = case.layer, case.device
    about: dict[str, Any] = {"operator": case.name, "backend": case.backend}
    reason = reason_against(case.name, case.backend, layer.shape, device.torch_device, device.dtype)
    if reason is not None:
        return [{**about, "reason": f"not usable: {reason}"}]
    if case.backend != "reference":
        try:
            check = agreement(
                case.architecture,
                case.backend,
                device=device.torch_device,
                dtype=device.dtype,
                batch=1,
                tokens=CHECKED_TOKENS,
            )
        # Kernel libraries raise any of these for work that they do not support.
        except (RuntimeError, AssertionError, ValueError) as error:
            return [{**about, "reason": f"refused: {_line(error)}"}]
        about["output_error"], about["gradient_error"] = check.output, max(check.gradients.values())
        if check.complaint:
            return [{**about, "reason": f"refused: {check.complaint}"}]
    _free()
    module = case.built()
    rows = []
    for batch in BATCHES:
        for context in CONTEXTS:
            for what, measure in (
                ("forward", _forward),
                ("forward_backward", _forward_backward),
                ("decode", _decode),
            ):
                row = {**about, "what": what, "batch": batch, "context": context}
                rows.append(row | _measured(partial(measure, case, module, batch, context), figures))
                _free()
    return rows


def _measured(measure: Callable[[], dict[str, float]], figures: dict[str, Any]) -> dict[str, Any]:
    try:
        row: dict[str, Any] = measure()
    except torch.OutOfMemoryError:
        return {"reason": "does not fit into the device's memory"}
    except _SkippedError as skipped:
        return {"reason": str(skipped)}
    except (RuntimeError, AssertionError, ValueError) as error:
        return {"reason": f"failed: {_line(error)}"}
    if "flops_per_s" in row:
        row["of_matrix_product"] = row["flops_per_s"] / figures["matrix_product_flops_per_s"]
    if "bytes_per_s" in row:
        row["of_copy"] = row["bytes_per_s"] / figures["copy_bytes_per_s"]
    return row


class _SkippedError(Exception):
    """Something that is not worth trying; the message says why."""


def _require_size(case: Case, tokens: int, largest: int) -> None:
    if tokens > largest:
        raise _SkippedError(f"{tokens} tokens at once were not tried: their activations do not fit")
    if case.backend == "reference" and (tokens > REFERENCE_TOKENS or largest < LARGEST_FORWARD):
        raise _SkippedError(f"the reference is timed forward and up to {REFERENCE_TOKENS} tokens at once")


def _forward(case: Case, module: OperatorModule, batch: int, context: int) -> dict[str, float]:
    _require_size(case, batch * context, LARGEST_FORWARD)
    x = case.input(batch, context)
    with torch.inference_mode():
        ms = sample(lambda: case.device.timed(lambda: module(x)), settings=SETTINGS).median_ms
    return {"ms": ms, "flops_per_s": _flops(case, batch, context) / ms * 1e3}


def _forward_backward(case: Case, module: OperatorModule, batch: int, context: int) -> dict[str, float]:
    _require_size(case, batch * context, LARGEST_BACKWARD)
    x, seen = case.input(batch, context).requires_grad_(), case.input(batch, context)
    wanted = [x, *module.parameters()]
    ms = sample(
        lambda: case.device.timed(lambda: torch.autograd.grad(module(x), wanted, seen)), settings=SETTINGS
    ).median_ms
    return {"ms": ms, "flops_per_s": 3 * _flops(case, batch, context) / ms * 1e3}


def _flops(case: Case, batch: int, context: int) -> int:
    """FLOPs of reading sequences of `context` tokens; the average token sees half of them."""
    return batch * context * registry.get(case.name).flops(WIDTH, case.layer.shape, (context + 1) // 2)


def _decode(case: Case, module: OperatorModule, batch: int, context: int) -> dict[str, float]:
    operator, shape, device = registry.get(case.name), case.layer.shape, case.device
    shortest, longer = (operator.state(shape, batch, tokens, device.dtype) for tokens in (1, 2))
    specs = operator.state(shape, batch, context, device.dtype)
    grows = {name for name in specs if shortest[name] != longer[name]}
    if context != CONTEXTS[0] and not grows:
        raise _SkippedError(f"costs the same as at context {CONTEXTS[0]}")
    state: State = {
        name: torch.randn(
            spec.shape, device=device.torch_device, dtype=torch.float32 if not grows else spec.dtype
        )
        .to(spec.dtype)
        .mul_(0.1)
        for name, spec in specs.items()
    }
    x, position = case.input(batch), torch.full((batch,), context - 1, device=device.torch_device)
    with torch.inference_mode():
        ms = sample(_timed_step(device, lambda: module.step(x, state, position)), settings=SETTINGS).median_ms
    moved = sum(weight.nbytes for weight in module.parameters())
    moved += sum(spec.bytes * (1 if name in grows else 2) for name, spec in specs.items())
    return {"ms": ms, "bytes_per_s": moved / ms * 1e3}


def _timed_step(device: Device, step: Callable[[], Tensor]) -> Callable[[], float]:
    """Runs that time one step in ms, on a GPU as a graph and with a cold L2 cache."""
    if device.torch_device.type != "cuda":
        return lambda: device.timed(step)
    graph = captured(step, device=device.torch_device, warmups=2)
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.int8, device=device.torch_device)

    def run() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flushed.zero_()
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    return run


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _line(error: Exception) -> str:
    return flat(error, at_most=300)


BENCHMARK = Benchmark(
    "operators",
    "every operator with each of its backends, against what the device can do",
    operators_and_backends,
)
