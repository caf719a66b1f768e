"""Benchmark: how long an operator's kernels take to be ready for forward, backward and a decode step.

A candidate of a new shape waits for its kernels to be compiled and tuned before it can be trained or
measured.

    frontrunner bench warm --device cuda:0

New: nothing was ever compiled, as the kernels' cache is an empty folder. Every operator has a process of its
own, all at the same time on all cores. Known: the same once more in fresh processes. Alone: from an empty
cache again, one operator after the other. Seconds leave out importing libraries and opening the device, which
come before the first kernel and are given beside them. Model: everything that a published model decodes and
is trained with, from an empty cache, from the beginning to the end.
"""

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console

from operators import registry
from operators.architecture import Architecture, Layer
from operators.base.threads import usable_cores
from profiler.device.device import open_device
from profiler.kernels.warm import Job, Warmed, Workload, jobs, warm
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.kernel_cache import empty_kernel_cache
from search.runs.warming import warm_jobs

MODEL = "nemotron-flash-1b"
WIDTH = 1536
WORKLOAD = Workload(training=((4, 2048),), decoding=((4, 2048),))


def warm_everything(device: str, console: Console) -> Measured:
    """Seconds of each operator at a new shape and at a known one, and all that was measured of it."""
    device = open_device(device).label
    work = _work(device)
    figures: Figures = {"cores": len(usable_cores()), "operators": len(work)}
    samples: list[dict[str, Any]] = []

    def note(kind: str, outcomes: Iterable[Warmed]) -> None:
        operators = sorted(outcomes, key=lambda warmed: warmed.operator)
        samples.extend({"kind": kind, **asdict(warmed)} for warmed in operators)
        for warmed in operators:
            console.print(_described(kind, warmed), soft_wrap=True)

    with empty_kernel_cache():
        note("new", warm(work))
        note("known", warm(work))
    with empty_kernel_cache():
        note("alone", [warmed for job in work for warmed in warm([job])])
    with empty_kernel_cache():
        began = time.perf_counter()
        note("model", warm(warm_jobs([MODEL], batches=None, tokens=None, device=device)))
        figures["model_s"] = time.perf_counter() - began
    for kind in ("new", "known", "alone"):
        rows = [row for row in samples if row["kind"] == kind]
        figures |= {f"{kind}.{row['operator']}_s": row["seconds"] for row in rows}
        figures |= {f"{kind}_longest_s": max(row["seconds"] for row in rows)}
        figures |= {f"{kind}_longest_start_s": max(row["start_s"] for row in rows)}
    return Measured(figures, samples)


def _work(device: str) -> list[Job]:
    """Every operator that has a library's kernels, at its default shape."""
    names = [name for name in registry.names() if len(registry.get(name).backends) > 1]
    layers = tuple(Layer(operator=name, shape=registry.get(name).shape.make(WIDTH)) for name in names)
    return jobs([Architecture(width=WIDTH, vocabulary=2, layers=layers)], WORKLOAD, device)


def _described(kind: str, warmed: Warmed) -> str:
    seconds = f"{warmed.seconds:7.2f} s, start {warmed.start_s:5.1f} s"
    return f"{kind:<6}{warmed.operator:<16}{warmed.backend:<14}{seconds}  {warmed.problem}"


BENCHMARK = Benchmark(
    "warm", "how long operators' kernels take to be compiled and tuned", warm_everything, gpu=True
)
