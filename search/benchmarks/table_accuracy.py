"""How well the latency table predicts models that are drawn from the space."""

import time
import timeit
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from operators.base.threads import torch_threads
from operators.vision.vision_language import Model
from profiler.device.device import open_device
from profiler.table.build import build
from profiler.table.latency_table import LatencyTable, default_path
from profiler.table.parts import Point
from search.benchmarks.benchmark import Figures, Measured
from search.runs.table_for_space import accuracy_figures, default_points, load_space, members_of
from search.runs.table_for_space import samples as cases
from search.view.latency_table import accuracy_table, build_and_validate, progress
from search.view.terminal_tables import show

SEED = 0
PREDICTIONS = 50  # timed together: one alone is too short for the clock


def table_accuracy(space: str, models: int, device: str, console: Console) -> Measured:
    """Errors at every point, and every entry and model that they come from.

    space: configs/SPACE_cpu.yaml or configs/SPACE_cuda.yaml is the run whose space models are drawn from
    models: how many are drawn
    """
    opened = open_device(device)
    run = load_space(Path(f"{space}_{opened.torch_device.type}"))
    with torch_threads(run.profile.threads):
        table = LatencyTable.open(default_path(opened), opened)
        before, began = len(table.entries), time.perf_counter()
        layers = members_of(run)
        points = default_points(run.profile, run.parsed_constraints())
        build(table, layers, points, device=opened, on_entry=progress(console))
        build_s, began = time.perf_counter() - began, time.perf_counter()
        cases_by_point = build_and_validate(
            table, run, count=models, seed=SEED, device=opened, console=console
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


def _predict_us(table: LatencyTable, model: Model, point: Point) -> float:
    """The time of one prediction that the table has made before (µs): the best of ten runs of fifty."""

    def predict() -> None:
        table.latency(model, point)

    predict()
    return min(timeit.repeat(predict, number=PREDICTIONS, repeat=10)) / PREDICTIONS * 1e6
