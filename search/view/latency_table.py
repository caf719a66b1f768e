"""Latency tables in the terminal: progress, entries and accuracy."""

import time
from collections.abc import Sequence

from rich.console import Console

from profiler.device.device import Device
from profiler.table.build import Progress, build
from profiler.table.latency_table import LatencyTable, Validation
from profiler.table.parts import Entry, Point
from profiler.table.validate import Case, accuracy, validate
from search.config.run import RunConfig
from search.gates.table import digest_of
from search.runs.table_for_space import default_points, held_out, named, space_of
from search.view.tables import MARK
from search.view.terminal_tables import Sheet, sheet


def progress(console: Console) -> Progress:
    """Prints a line for each new entry: how many are done, the time left, and its latency and error."""
    began = time.monotonic()

    def on_entry(entry: Entry, done: int, total: int) -> None:
        left = round((time.monotonic() - began) / done * (total - done))
        what = (
            f"{entry.name:<14} w{entry.width:<5} {named(Point(entry.phase, entry.batch, entry.context)):<18}"
        )
        took = f"{entry.ms * 1e3:>9.1f} µs ±{_percent(entry):>4} %"
        line = f"{done:>4}/{total}  {left // 60}:{left % 60:02} left  {what} {took}  {entry.details}"
        if console.is_terminal:  # the shape's details, at the end, give way to the width
            console.print(line, no_wrap=True, overflow="ellipsis", markup=False, highlight=False)
        else:
            console.print(line, soft_wrap=True, markup=False, highlight=False)

    return on_entry


def entries_table(entries: Sequence[Entry]) -> Sheet:
    """A row for each entry. A layer's time includes its normalization and residual connection."""
    rows = (
        (
            entry.name,
            entry.details,
            str(entry.width),
            named(Point(entry.phase, entry.batch, entry.context)),
            f"{entry.ms * 1e3:.1f}",
            _percent(entry),
        )
        for entry in entries
    )
    words = ("operator", "shape", "point")
    return sheet(("operator", "shape", "width", "point", "time [µs]", "± [%]"), rows, words=words)


def _percent(entry: Entry) -> str:
    return f"{100 * entry.error_ms / abs(entry.ms):.1f}" if entry.ms else ""


def build_and_validate(
    table: LatencyTable, run: RunConfig, *, count: int, seed: int, device: Device, console: Console
) -> dict[Point, list[Case]]:
    """Measures missing entries, then held-out models, and returns the cases of each point.

    The table keeps the errors of its predictions.

    table: the table, which is extended.
    run: the run whose space the models are drawn from.
    count: number of models.
    seed: seed of the draw.
    """
    points = default_points(run.profile, run.parsed_constraints())
    models = held_out(space_of(run), count, seed=seed, points=points, device=device)
    build(table, models, points, device=device, on_entry=progress(console))
    cases_by_point: dict[Point, list[Case]] = {point: [] for point in points}
    for number, case in enumerate(validate(table, models, points, device)):
        cases_by_point[case.point].append(case)
        error = case.predicted.ms / case.measured.median_ms - 1
        line = f"{number // len(points) + 1:>4}/{count} {named(case.point):<18} "
        line += (
            f"measured {case.measured.median_ms:8.3f} ms, predicted {case.predicted.ms:8.3f} ({error:+.1%})"
        )
        line += ", tainted" if case.tainted else ""
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    space_digest = digest_of(run.space, run.vision.space if run.vision else None)
    accuracies = {point: accuracy(cases) for point, cases in cases_by_point.items()}
    validations = [
        Validation(space=space_digest, **point._asdict(), models=of_point.models, p95=of_point.p95)
        for point, of_point in accuracies.items()
    ]
    table.add((), validations)
    return cases_by_point


def accuracy_table(cases_by_point: dict[Point, list[Case]]) -> Sheet:
    """A row for each point: the errors of predictions, and rank correlations with the measured latencies.

    One correlation is that of the predictions, the other that of the number of parameters.
    """
    rows = []
    for point, cases in cases_by_point.items():
        of_point = accuracy(cases)
        errors = (f"{of_point.mape:.1%}", f"{of_point.p95:.1%}", f"{of_point.bias:+.1%}")
        counts = (str(of_point.models), str(of_point.tainted))
        rows.append((named(point), *counts, *errors, f"{of_point.tau:.3f}", f"{of_point.params_tau:.3f}"))
    names = ("point", "models", "tainted", "MAPE", "p95", "bias", "τ", "params τ")
    left_out = sum(int(row[2]) for row in rows)
    notes = [f"{MARK} {left_out} tainted measurements, not to be trusted, are left out"] if left_out else []
    return sheet(names, rows, words=("point",), notes=notes)
