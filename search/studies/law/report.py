"""What `law fit` and `law pick` report: figures for a script, tables for a terminal."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from operators.base.errors import ConfigError
from profiler.profile import key
from profiler.table.latency_table import LatencyTable
from profiler.table.parts import Point
from search.evaluation.figures import digits, formatted
from search.studies.law.fit import LEVEL, Fitted, Floats, Points, fit, hold_out
from search.studies.law.law import Grid, Quantity
from search.studies.law.pick import Choice, Shape, from_measurements, from_table, latency_law, pick
from search.view.tables import MARK, taint_notes
from search.view.terminal_tables import sheet, show

# How many of the shapes that keep a latency budget are printed.
_SHOWN = 5


@dataclass(frozen=True)
class Checked:
    """A law fitted to some points, and how far off it is on the others, which the fit did not use.

    of: what the law gives, loss or perplexity.
    fitted: the law with its intervals.
    points: the fitted points.
    held: the other points.
    errors: relative errors of the perplexity at the fitted points [n].
    held_errors: the same at the other points.
    """

    of: Quantity
    fitted: Fitted
    points: Points
    held: Points
    errors: Floats
    held_errors: Floats


def check(grid: Grid, *, of: Quantity, holdout: int, tokens: int | None) -> Checked:
    """Fits the law without the `holdout` largest shapes and predicts them. Raises ConfigError."""
    points = grid.points(of, tokens)
    kept, out = hold_out(points, holdout) if len(points) else (np.array([], int),) * 2
    fitted = fit(points.take(kept))
    errors = _perplexity_errors(fitted, points, of)
    return Checked(of, fitted, points.take(kept), points.take(out), errors[kept], errors[out])


def _perplexity_errors(fitted: Fitted, points: Points, of: Quantity) -> Floats:
    predicted = fitted.law.loss(*points.inputs)
    return np.asarray(
        predicted / points.loss - 1 if of == "perplexity" else np.expm1(predicted - points.loss)
    )


def figures(checked: Checked) -> dict[str, Any]:
    """Returns the law, its errors, and every point with the law's value for it, as JSON can hold them."""
    law = checked.fitted.law
    coefficients = {
        name: dict(
            zip(("value", "low", "high"), (value, *checked.fitted.coefficient_interval(name)), strict=True)
        )
        for name, value in asdict(law).items()
    }
    return {
        "of": checked.of,
        "interval_level": LEVEL,
        "law": coefficients,
        "fitted": _rows(checked.fitted, checked.points, checked.errors),
        "held_out": _rows(checked.fitted, checked.held, checked.held_errors),
        "perplexity_error_mean": float(np.abs(checked.errors).mean()),
        "perplexity_error_max": float(np.abs(checked.errors).max()),
        "held_out_perplexity_error_mean": float(np.abs(checked.held_errors).mean())
        if len(checked.held)
        else None,
        "held_out_perplexity_error_max": float(np.abs(checked.held_errors).max())
        if len(checked.held)
        else None,
    }


def _rows(fitted: Fitted, points: Points, errors: Floats) -> list[dict[str, float | int]]:
    low, high = fitted.interval(*points.inputs) if len(points) else (np.array([]), np.array([]))
    columns = (*points.inputs, points.loss, fitted.law.loss(*points.inputs), low, high, errors)
    names = ("depth", "width", "tokens", "measured", "predicted", "low", "high", "perplexity_error")
    rows = [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]
    return [{**row, **{name: int(row[name]) for name in names[:3]}} for row in rows]


def print_check(console: Console, checked: Checked) -> None:
    """Prints the formula, its numbers with their intervals, and the points that were held out."""
    found = figures(checked)
    budgets = " + c·N^-γ" if checked.fitted.law.c else ""
    console.print(
        f"{checked.of} = L0 + a·D^-α + b·W^-β{budgets}, fitted to {len(checked.points)} points",
        soft_wrap=True,
    )
    signs = {"floor": "L0", "alpha": "α", "beta": "β", "gamma": "γ"}
    for name, value in found["law"].items():
        if value["value"] or name not in ("c", "gamma"):
            console.print(
                f"{signs.get(name, name):<4}{value['value']:>10.4g}  {LEVEL:.0%} from "
                f"{value['low']:.4g} to {value['high']:.4g}"
            )
    mean, largest = found["perplexity_error_mean"], found["perplexity_error_max"]
    console.print(
        f"perplexity of the fitted points is off by {mean:.2%} in the mean, {largest:.2%} at most",
        soft_wrap=True,
    )
    if found["held_out"]:
        rows = []
        for row in found["held_out"]:
            interval = f"{row['low']:.4f} – {row['high']:.4f}"
            shape = (str(row["depth"]), str(row["width"]), formatted("params", row["tokens"]))
            numbers = (f"{row['measured']:.4f}", f"{row['predicted']:.4f}")
            rows.append((*shape, *numbers, interval, f"{row['perplexity_error']:+.2%}"))
        of = _with_unit(checked.of)
        names = ("depth", "width", "tokens", f"measured {of}", f"law {of}", f"{LEVEL:.0%} interval", "off")
        console.print(
            "the largest shapes, which the fit did not see, and how far off it is in perplexity:",
            soft_wrap=True,
        )
        show(console, sheet(names, rows))


def plot(grid: Grid, checked: Checked, path: Path, *, title: str) -> bool:
    """Plots the points at the largest budget of the check.

    Returns False, and plots nothing, where no point has both a loss and a latency.
    """
    from search.studies.law.plot import plot_law  # matplotlib takes a second to import

    metric = grid.settings.profile.keys("decode_ms")[0]
    times = _measured(grid, metric)
    tokens = int(max(checked.points.tokens))
    everything = [points for points in (checked.points, checked.held) if len(points)]
    losses = {
        (int(depth), int(width)): float(loss)
        for points in everything
        for depth, width, budget, loss in zip(*points.inputs, points.loss, strict=True)
        if budget == tokens
    }
    if not set(losses) & set(times):
        return False
    try:
        law = (checked.fitted.law, latency_law(times), tokens)
    except ConfigError:  # too few latencies to fit a law: only the points are drawn
        law = None
    plot_law(
        losses,
        times,
        path,
        metric=metric,
        quantity=checked.of,
        title=f"{title}, {grid.settings.block}",
        tainted=frozenset(grid.tainted),
        law=law,
    )
    return True


def picked(
    grid: Grid, *, of: Quantity, budget_ms: float, batch: int | None, tokens: int | None, table: Path | None
) -> list[Choice]:
    """Returns the choices within the budget, by the law of all points.

    of: what the law gives, loss or perplexity.
    budget_ms: of a decode step.
    batch: rows of the decode step; None for the profile's first batch size.
    tokens: the budget of training at which the loss is predicted; None for the largest.
    table: file of the latency table that predicts the times; None for the measured times.

    Raises ConfigError, TableError.
    """
    settings = grid.settings
    points = grid.points(of, tokens)
    fitted = fit(points)
    batch = batch or next(iter(settings.profile.batch_sizes), 1)
    if table is not None:
        point = Point("decode", batch, settings.profile.contexts[0])
        times: dict[Shape, float] = {}
        latency = from_table(LatencyTable.read(table), settings, point)
    else:
        metric = key("decode_ms", batch=batch)
        if metric not in settings.profile.keys("decode_ms"):
            raise ConfigError(
                f"--batch {batch}: expected one that was measured: "
                f"{', '.join(map(str, settings.profile.batch_sizes))}"
            )
        times = _measured(grid, metric)
        latency = from_measurements(times)
    return pick(
        settings,
        fitted,
        latency,
        times,
        budget_ms=budget_ms,
        tokens=int(max(points.tokens)),
        tainted=grid.tainted,
    )


def _measured(grid: Grid, metric: str) -> dict[Shape, float]:
    """Returns the latencies by shape that were measured well.

    The latency law gives the time of a shape whose latency is tainted.
    """
    return {
        shape: times[metric]
        for shape, times in grid.decode_ms.items()
        if metric in times and shape not in grid.tainted
    }


def print_choices(console: Console, choices: Sequence[Choice], *, of: Quantity, tainted: int = 0) -> None:
    """Prints the best few choices, the best first.

    tainted: number of shapes whose measured latency is not to be trusted; the law rests on these too.
    """
    rows, marked = [], {}
    for choice in choices[:_SHOWN]:
        source = "measured" if choice.measured else "law"
        sizes = (str(choice.depth), str(choice.width), formatted("params", choice.params))
        ms = f"{digits(choice.ms)}{MARK if choice.tainted else ''}"
        rows.append((*sizes, ms, source, f"{choice.loss:.4f}", f"{choice.low:.4f} – {choice.high:.4f}"))
        marked[f"depth {choice.depth} width {choice.width}"] = choice.tainted
    names = ("depth", "width", "params", "decode [ms]", "from", _with_unit(of), f"{LEVEL:.0%} interval")
    notes = taint_notes(marked)
    if tainted and any(not choice.measured for choice in choices[:_SHOWN]):
        notes.append(
            f"{MARK} the law of the latency rests on {tainted} shapes whose measurements are tainted"
        )
    show(console, sheet(names, rows, notes=notes))


def _with_unit(of: Quantity) -> str:
    return "loss [nats/token]" if of == "loss" else of
