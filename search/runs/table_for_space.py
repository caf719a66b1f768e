"""What `frontrunner table` does: sources to layers, progress while building, held-out models, and tables for a terminal."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from operators.architecture import Architecture
from operators.base.errors import ConfigError
from operators.cost import cost
from profiler.device.device import Device
from profiler.table.build import Progress, build, memory_for_models
from profiler.table.latency_table import LatencyTable, Validation
from profiler.table.parts import Entry, Point
from profiler.table.validate import Accuracy, Case, accuracy, validate
from search.config import run as config_module
from search.config.run import RunConfig
from search.gates.table import constrained_points, digest_of, members
from search.runs.sources import run_or_architecture
from search.spaces.free import ArchitectureSpace
from search.spaces.staged import make_space
from search.view.tables import MARK
from search.view.terminal_tables import Sheet, sheet

_DRAWS = 100  # for each model that is held out, before the space is said to have too few


@dataclass(frozen=True)
class Wanted:
    """What a table is to know: architectures that together have every layer, and the points to measure these at."""

    architectures: tuple[Architecture, ...]
    points: tuple[Point, ...]


def wanted(
    sources: Sequence[str],
    *,
    batches: Sequence[int] | None,
    contexts: Sequence[int] | None,
    results: Path = Path("results"),
) -> Wanted:
    """Of run files, runs and models (see `search.runs.sources`); `batches` and `contexts` replace those that a run is measured with.

    Raises ConfigError and ArchitectureError.
    """
    architectures: list[Architecture] = []
    points: dict[Point, None] = {}
    for source in sources:
        given = run_or_architecture(source, results)
        run = given if isinstance(given, RunConfig) else None
        architectures += [given] if isinstance(given, Architecture) else members(space_of(given))
        for batch in batches or (run.profile.batch_sizes if run else (1, 8)):
            for context in contexts or (run.profile.contexts if run else (1024,)):
                points |= dict.fromkeys((Point("decode", batch, context), Point("prefill", batch, context)))
    return Wanted(tuple(architectures), tuple(points))


def space_of(run: RunConfig) -> ArchitectureSpace:
    return make_space(run.space, run.data.vocabulary)


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


def load_space(path: Path) -> RunConfig:
    """The run file at that path. Raises ConfigError for an architecture or anything else."""
    if not path.is_file():
        raise ConfigError(
            f"{path}: expected the YAML file of a run, whose search space models are drawn from"
        )
    return config_module.load(path)


def default_points(run: RunConfig) -> tuple[Point, ...]:
    """Decoding at each of the run's batch sizes, reading a prompt at the first, with its first context; and where it has constraints."""
    batches, context = run.profile.batch_sizes, run.profile.contexts[0]
    decode, prefill = (
        (Point("decode", batch, context) for batch in batches),
        (Point("prefill", batch, context) for batch in batches[:1]),
    )
    return tuple(dict.fromkeys([*decode, *prefill, *constrained_points(run).values()]))


def held_out(
    space: ArchitectureSpace, count: int, *, seed: int, points: Sequence[Point], device: Device
) -> tuple[Architecture, ...]:
    """Distinct models drawn at random, of those that fit the device's memory at every point. Raises ConfigError for a space of fewer."""
    memory = memory_for_models(device)

    def fits(architecture: Architecture) -> bool:
        costs = [
            cost(architecture, batch=point.batch, context=point.context, dtype=device.dtype)
            for point in points
        ]
        return all(found.param_bytes + found.state_bytes <= memory for found in costs)

    fitting, rng = replace(space, accepts=fits), np.random.default_rng(seed)
    found: dict[str, Architecture] = {}
    for _ in range(_DRAWS * count):
        member = fitting.sample(rng)
        found.setdefault(fitting.key(member), member)
        if len(found) == count:
            return tuple(found.values())
    raise ConfigError(
        f"space: {len(found)} different architectures in {_DRAWS * count} draws; expected {count}: hold out fewer"
    )


def build_and_validate(
    table: LatencyTable, run: RunConfig, *, count: int, seed: int, device: Device, console: Console
) -> dict[Point, list[Case]]:
    """Builds what is missing, then measures models that are held out, a line of the console for each -> cases by point.

    How far predictions were off is noted in the table.
    """
    points, space = default_points(run), space_of(run)
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


def named(point: Point) -> str:
    return f"{point.phase} b{point.batch} c{point.context}"


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


def accuracy_figures(found: dict[Point, list[Case]]) -> dict[str, Accuracy]:
    return {f"{point.phase}@b{point.batch}": accuracy(cases) for point, cases in found.items()}


def samples(found: dict[Point, list[Case]]) -> list[dict[str, Any]]:
    """Every case as JSON takes it: what a record or a script needs to compute the figures again."""
    return [
        {
            "architecture": case.architecture.model_dump(mode="json"),
            **case.point._asdict(),
            "params": case.params,
            "predicted_ms": case.predicted.ms,
            "predicted_error_ms": case.predicted.error_ms,
            "measured_ms": case.measured.median_ms,
            "iqr_ms": case.measured.iqr_ms,
            "n": case.measured.n,
            "stopped_by": case.measured.stopped_by,
            "drift": case.drift,
            "tainted": case.tainted,
        }
        for cases in found.values()
        for case in cases
    ]
