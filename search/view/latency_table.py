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
from search.runs.table_for_space import default_points, held_out, named
from search.spaces.staged import make_space
from search.view.tables import MARK
from search.view.terminal_tables import Sheet, sheet


def progress(console: Console) -> Progress:
    """Prints a line for each entry: how many are done, what it is, its time and error, and about how long the rest will take."""
    began = time.monotonic()

    def on_entry(entry: Entry, done: int, total: int) -> None:
        left = round((time.monotonic() - began) / done * (total - done))
        what = (
            f"{entry.name:<14} w{entry.width:<5} {named(Point(entry.phase, entry.batch, entry.context)):<18}"
        )
        took = f"{entry.ms * 1e3:>9.1f} µs ±{_percent(entry):>4} %"
        said = f"{done:>4}/{total}  {left // 60}:{left % 60:02} left  {what} {took}  {entry.details}"
        console.print(said, no_wrap=True, overflow="ellipsis", markup=False, highlight=False)

    return on_entry


def entries_table(entries: Sequence[Entry]) -> Sheet:
    """A row an entry; a layer's time includes its normalization and residual connection."""
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
    """Builds what is missing, then measures models that are held out, a line of the console for each -> cases by point.

    How far predictions were off is noted in the table.
    """
    points = default_points(run.profile, run.parsed_constraints())
    space = make_space(run.space, run.data.vocabulary)
    models = held_out(space, count, seed=seed, points=points, device=device)
    build(table, models, points, device=device, on_entry=progress(console))
    found: dict[Point, list[Case]] = {point: [] for point in points}
    for number, case in enumerate(validate(table, models, points, device)):
        found[case.point].append(case)
        error = case.predicted.ms / case.measured.median_ms - 1
        said = f"{number // len(points) + 1:>4}/{count} {named(case.point):<18} measured {case.measured.median_ms:8.3f} ms, predicted "
        said += f"{case.predicted.ms:8.3f} ({error:+.1%}){', tainted' if case.tainted else ''}"
        console.print(said, soft_wrap=True, markup=False, highlight=False)
    space_digest = digest_of(run.space)
    is_ = {point: accuracy(cases) for point, cases in found.items()}
    validations = [
        Validation(space=space_digest, **point._asdict(), models=far.models, p95=far.p95)
        for point, far in is_.items()
    ]
    table.add((), validations)
    return found


def accuracy_table(found: dict[Point, list[Case]]) -> Sheet:
    """A row for each point: how far predictions are off, and how well they and the number of parameters order models."""
    rows = []
    for point, cases in found.items():
        is_ = accuracy(cases)
        errors = (f"{is_.mape:.1%}", f"{is_.p95:.1%}", f"{is_.bias:+.1%}")
        counts = (str(is_.models), str(is_.tainted))
        rows.append((named(point), *counts, *errors, f"{is_.tau:.3f}", f"{is_.params_tau:.3f}"))
    names = ("point", "models", "tainted", "MAPE", "p95", "bias", "τ", "params τ")
    left_out = sum(int(row[2]) for row in rows)
    notes = [f"{MARK} {left_out} tainted measurements, not to be trusted, are left out"] if left_out else []
    return sheet(names, rows, words=("point",), notes=notes)
