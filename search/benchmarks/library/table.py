"""Benchmark: how well the latency table predicts whole models.

A search by the table never measures most of its candidates, so the table's errors become the search's. 60
models are drawn at random from a space that is declared for the kind of device, measured, and compared with
the table's sums.

    frontrunner bench table --device cuda:0

Spaces: configs/table_cpu.yaml and configs/table_cuda.yaml. Entries that the device's table has are not
measured again.
"""

import time
import timeit
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from operators.architecture import Architecture
from operators.base.threads import torch_threads
from profiler.device.device import open_device
from profiler.table.build import build
from profiler.table.latency_table import LatencyTable, default_path
from profiler.table.parts import Point
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.gates.table import members
from search.runs.table_for_space import accuracy_figures, default_points, load_space
from search.runs.table_for_space import samples as cases
from search.spaces.staged import make_space
from search.view.latency_table import accuracy_table, build_and_validate, progress
from search.view.terminal_tables import show

HOLDOUT, SEED = 60, 0
PREDICTIONS = 50  # timed together: one alone is too short for the clock


def table_accuracy(device: str, console: Console) -> Measured:
    """Errors at every point, and every entry and model that they come from."""
    opened = open_device(device)
    run = load_space(Path(f"table_{opened.torch_device.type}"))
    with torch_threads(run.profile.threads):
        table = LatencyTable.open(default_path(opened), opened)
        before, began = len(table.entries), time.perf_counter()
        layers = members(make_space(run.space, run.data.vocabulary))
        points = default_points(run.profile, run.parsed_constraints())
        build(table, layers, points, device=opened, on_entry=progress(console))
        build_s, began = time.perf_counter() - began, time.perf_counter()
        cases_by_point = build_and_validate(
            table, run, count=HOLDOUT, seed=SEED, device=opened, console=console
        )
        validate_s = time.perf_counter() - began
        predict_us = _predict_us(table, layers[0], points[0])
    show(console, accuracy_table(cases_by_point))
    figures: Figures = {
        "entries": len(table.entries),
        "entries_measured": len(table.entries) - before,
        "build_s": round(build_s, 1),
        "validate_s": round(validate_s, 1),
        "predict_us": round(predict_us, 1),
        "context_tokens": run.profile.contexts[0],
        "seed": SEED,
    }
    for point, accuracy in accuracy_figures(cases_by_point).items():
        figures |= {f"{point}.{name}": value for name, value in asdict(accuracy).items()}
    samples = {
        "entries": [entry.model_dump(mode="json") for entry in table.entries],
        "models": cases(cases_by_point),
    }
    return Measured(figures, samples)


def _predict_us(table: LatencyTable, architecture: Architecture, point: Point) -> float:
    """The time of one prediction that the table has made before (µs): the best of ten runs of fifty."""

    def predict() -> None:
        table.latency(architecture, point)

    predict()
    return min(timeit.repeat(predict, number=PREDICTIONS, repeat=10)) / PREDICTIONS * 1e6


BENCHMARK = Benchmark("table", "how well the latency table predicts whole models", table_accuracy)
