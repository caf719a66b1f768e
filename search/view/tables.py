"""A run as a frame, and frames as tables for a terminal or in Markdown.

docs/columns.md describes each column.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from search.config.run import RunConfig
from search.evaluation.figures import exact_value, formatted, percent, with_unit
from search.evaluation.outcome import worked
from search.objectives import Constraint, Objective, qualifies
from search.runs.entry import Entry
from search.runs.frontier import scored
from search.view.frame import Frame, frame_of
from search.view.terminal_tables import Sheet, sheet

SPREAD = "_spread"
"""Suffix of a metric's name that gives the name of the column with its relative error."""
MARK = "!"
"""Sign behind a tainted figure: one that was measured under conditions that are not to be trusted."""
_WORDS = ("architecture", "loads_in", "status", "reason", "origin", "parents", "tainted", "frontier")
_OPTIONAL = ("params", "width", "depth", "loads_in")
_STAR = "*"


def frame(
    entries: Sequence[Entry],
    objectives: Sequence[Objective],
    metrics: Sequence[str],
    *,
    where: Sequence[Constraint] = (),
    frontier: bool = False,
) -> Frame:
    """One row for each candidate: its architecture, metrics with errors, status, and place on the frontier.

    entries: the run's ledger.
    objectives: objectives that the frontier is taken by.
    metrics: names of the metrics to show as columns even where no candidate has them.
    where: only candidates that meet all of these are kept, and the frontier is taken among them.
    frontier: whether only the frontier has rows, as the others take long. Their metrics have columns still.
    """
    on_frontier = {entry.number for entry in scored(entries, objectives).frontier(where)}
    kept = [entry for entry in entries if qualifying(entry, where)]
    rows = [
        _row(entry, metrics, on_frontier=entry.number in on_frontier)
        for entry in kept
        if not frontier or entry.number in on_frontier
    ]
    first, last = ("id", "architecture", "width", "depth", "loads_in"), _TAIL
    others = dict.fromkeys(name for row in rows for name in row if name not in last)
    others |= dict.fromkeys(name for entry in kept if entry.evaluation for name in entry.evaluation.metrics)
    columns = [*dict.fromkeys((*first, *metrics, *others)), *last]
    return frame_of(rows, columns, metrics)


def run_frame(
    config: RunConfig,
    entries: Sequence[Entry],
    objectives: Sequence[str] | None,
    where: Sequence[str],
    *,
    frontier: bool = False,
) -> Frame:
    """The frame of a run's candidates.

    objectives: names of metrics, the run's own where it is None.
    where: texts of conditions.
    frontier: whether it has the frontier alone.

    Raises ConfigError.
    """
    metrics = config.metrics.names()
    conditions = config.parsed_constraints(where)
    wanted = config.parsed_objectives(objectives)
    return frame(entries, wanted, metrics, where=conditions, frontier=frontier)


_TAIL = ("status", "reason", "tainted", "origin", "parents", "seconds", "frontier")


def _row(entry: Entry, metrics: Sequence[str], *, on_frontier: bool) -> dict[str, Any]:
    evaluation = entry.evaluation
    known = evaluation.metrics if evaluation else {}
    return {
        "id": entry.number,
        "architecture": entry.shorthand,
        "width": entry.size[0],
        "depth": entry.size[1],
        "loads_in": entry.loads_in,
        **dict.fromkeys(metrics),
        **{name: exact_value(name, value) for name, value in known.items()},
        **{name + SPREAD: value for name, value in spreads(entry).items()},
        "status": evaluation.status if evaluation else "unfinished",
        "reason": evaluation.reason if evaluation else "",
        "tainted": list(dict.fromkeys(entry.tainted().values())),
        "origin": entry.origin,
        "parents": list(entry.parents),
        "seconds": sum(worked(evaluation.seconds).values()) if evaluation else None,
        "frontier": on_frontier,
    }


def spreads(entry: Entry) -> dict[str, float]:
    """Metric -> its relative error: that of its measurement or, if larger, that of its two evaluations."""
    evaluation = entry.evaluation
    if evaluation is None:
        return {}
    relative = {name: error for name, error in evaluation.errors().items() if name in evaluation.metrics}
    for name, error in evaluation.standard_errors.items():
        value = abs(evaluation.metrics.get(name, 0.0))
        if error and value:
            relative[name] = max(relative.get(name, 0.0), error / value)
    return relative


def qualifying(entry: Entry, where: Sequence[Constraint]) -> bool:
    """Whether a candidate has the metric of every constraint, and meets all of them."""
    return qualifies(entry.evaluation.metrics if entry.evaluation else {}, where)


def columns_for(
    table: Frame,
    objectives: Sequence[Objective],
    *,
    with_status: bool = False,
    also: Iterable[str] = (),
) -> list[str]:
    """The columns that people look at first: objectives, further ones, sizes, and the architecture.

    with_status: add the columns for a table of all candidates.
    also: further columns, such as those that the rows were chosen or sorted by.
    """
    wanted = ["id", *(objective.metric for objective in objectives), *also, "params", "width", "depth"]
    wanted += ["architecture", "loads_in"]
    wanted = ["frontier", *wanted, "status"] if with_status else wanted
    return [name for name in dict.fromkeys(wanted) if name in table.columns]


def candidates_sheet(
    table: Frame,
    columns: Sequence[str],
    entries: Sequence[Entry],
    *,
    title: str,
    notes: Sequence[str] = (),
) -> Sheet:
    """The frame as a table for a terminal.

    `0.557! ± 2%` is a tainted figure with its relative error. A star marks members of the frontier.

    columns: columns to show.
    entries: the run's ledger, which knows the tainted figures.
    notes: lines below the table, before the notes on tainted figures.
    """
    numbers = set(table.column("id"))
    tainted = {entry.number: entry.tainted() for entry in entries if entry.number in numbers}
    rows = [_cells(row, columns, tainted.get(row["id"], {})) for row in table.rows]
    listed = {number: tainted.get(number, {}) for number in table.column("id")}
    shown = {
        number: [reason for name, reason in reasons.items() if name in columns]
        for number, reasons in listed.items()
    }
    headers = {name: _STAR if name == "frontier" else with_unit(name) for name in columns}
    asked = columns[: columns.index("params")] if "params" in columns else columns
    return sheet(
        list(headers.values()),
        rows,
        words=[headers[name] for name in columns if name in _WORDS],
        optional=[headers[name] for name in _OPTIONAL if name in columns and name not in asked],
        title=title,
        notes=[*notes, *taint_notes(shown)],
    )


def _cells(row: Mapping[Any, Any], columns: Sequence[str], tainted: Mapping[str, str]) -> list[str]:
    cells = []
    for name in columns:
        if name == "frontier":
            cells.append(_STAR if row[name] else "")
            continue
        cell, spread = formatted(name, row[name]), row.get(name + SPREAD)
        if name == "loads_in":
            # A cell is narrow: `show` and the other formats have the classes and the reason of `none`.
            cell = re.sub(r" \([^)]*\)|: .*", "", cell)
        if cell:
            cell += MARK if name in tainted else ""
            cell += f" ± {percent(spread)}" if spread is not None else ""
        cells.append(cell)
    return cells


def taint_notes(reasons: Mapping[Any, Sequence[str]]) -> list[str]:
    """The lines below a table with marks: each kind of reason once, with the owners of its figures.

    reasons: owner of tainted figures, such as a candidate's id -> their reasons.
    """
    by_kind: dict[str, list[str]] = {}
    for owner, texts in reasons.items():
        parts = [part.strip() for text in texts for part in text.split(";")]
        for kind in dict.fromkeys(part.partition(":")[0] for part in parts if part):
            by_kind.setdefault(kind, []).append(str(owner))
    listed = "; ".join(f"{kind} ({', '.join(owners)})" for kind, owners in by_kind.items())
    return [f"{MARK} tainted, not to be trusted: {listed}"] if by_kind else []


def left_out(entries: Sequence[Entry], objectives: Sequence[Objective]) -> str:
    """The reasons why some candidates are not compared for the frontier, with numbers; empty if all are."""
    compared = {entry.number for entry in scored(entries, objectives).entries}
    reasons: Counter[str] = Counter()
    for entry in entries:
        if entry.number in compared:
            continue
        status = entry.evaluation.status if entry.evaluation else "unfinished"
        lacking = [
            each.metric
            for each in objectives
            if entry.evaluation and each.metric not in entry.evaluation.metrics
        ]
        reasons[status if status != "ok" else f"without {lacking[0]}" if lacking else "unfinished"] += 1
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"not compared: {listed}" if listed else ""


def why_none(entries: Sequence[Entry], where: Sequence[Constraint]) -> str:
    """The reason why no candidate meets the constraints."""
    known = [(entry.number, entry.evaluation.metrics) for entry in entries if entry.evaluation]
    if not known:
        return "no candidate is evaluated yet"
    for constraint in where:
        values = {
            number: metrics[constraint.metric] for number, metrics in known if constraint.metric in metrics
        }
        if not values:
            return f"no candidate has {constraint.metric}"
        if all(constraint.broken_by({constraint.metric: value}) for value in values.values()):
            nearest = min(values, key=lambda number: abs(values[number] - constraint.bound))
            value = exact_value(constraint.metric, values[nearest])
            return f"no candidate meets {constraint}: the nearest, {nearest}, has {value}"
    return f"no candidate meets {' and '.join(map(str, where))} together"


def markdown(table: Frame, columns: Sequence[str], entries: Sequence[Entry]) -> str:
    """The frame as a table in Markdown, with the same cells as in a terminal."""
    shown = candidates_sheet(table, columns, entries, title="")
    lines = [_markdown_row(shown.names), "|" + "|".join("---" for _ in columns) + "|"]
    lines += map(_markdown_row, shown.rows)
    return "\n".join([*lines, *(f"\n{_escaped(note)}" for note in shown.notes)])


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(cell: str) -> str:
    """The cell as one line, with escapes for `|`, which would end it, and `*`, which would begin emphasis."""
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").split())
