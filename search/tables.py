"""A run as pandas frames, and frames as tables for a terminal, CSV, JSON or Markdown."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table

from operators.errors import ConfigError
from search.evaluate import worked
from search.frontier import frontier_of
from search.ledger import Entry
from search.objectives import METRICS, Constraint, Objective, base_of


def frame(entries: Sequence[Entry], objectives: Sequence[Objective], metrics: Sequence[str]) -> pd.DataFrame:
    """One row a candidate: what it is, every metric, how it ended, and whether it is on the frontier."""
    on_frontier = {entry.number for entry in frontier_of(entries, objectives)}
    rows = []
    for entry in entries:
        evaluation = entry.evaluation
        rows.append(
            {
                "id": entry.number,
                "architecture": entry.architecture.shorthand,
                "width": entry.architecture.width,
                "depth": entry.architecture.depth,
                **dict.fromkeys(metrics),
                **(evaluation.metrics if evaluation else {}),
                "status": evaluation.status if evaluation else "unfinished",
                "reason": evaluation.reason if evaluation else "",
                "origin": entry.origin,
                "parents": " ".join(str(parent) for parent in entry.parents),
                "seconds": sum(worked(evaluation.seconds).values()) if evaluation else None,
                "frontier": entry.number in on_frontier,
            }
        )
    columns = ["id", "architecture", "width", "depth", *metrics, "status", "frontier"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def select(
    table: pd.DataFrame,
    *,
    where: Sequence[Constraint] = (),
    sort: str | None = None,
    descending: bool = False,
) -> pd.DataFrame:
    """Rows that keep every constraint, sorted by a column. Raises ConfigError for a column that does not exist."""
    for constraint in where:
        values = table[_column(table, constraint.metric)]
        table = table.loc[
            [
                bool(pd.notna(value)) and constraint.broken_by({constraint.metric: value}) is None
                for value in values
            ]
        ]
    if sort:
        table = table.sort_values(_column(table, sort), ascending=not descending, kind="stable")
    return table


def _column(table: pd.DataFrame, name: str) -> str:
    if name not in table.columns:
        raise ConfigError(f"unknown column {name!r}: expected one of {', '.join(table.columns)}")
    return name


def columns_for(
    table: pd.DataFrame, objectives: Sequence[Objective], *, with_status: bool = False
) -> list[str]:
    """What people look at first: the objectives, sizes, the architecture."""
    wanted = [
        "id",
        *(objective.metric for objective in objectives),
        "params",
        "width",
        "depth",
        "architecture",
    ]
    wanted = ["frontier", *wanted, "status"] if with_status else wanted
    return [name for name in dict.fromkeys(wanted) if name in table.columns]


def formatted(name: str, value: object) -> str:
    """A cell for people: three or four significant digits, counts with SI prefixes."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    metric = METRICS.get(base_of(name))
    if metric is not None and metric.unit in ("parameters", "bytes", "bytes/s", "tokens/s"):
        for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.3g}{suffix}"
        return f"{value:.3g}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rich_table(table: pd.DataFrame, columns: Sequence[str], *, title: str) -> Table:
    """For a terminal; numbers to the right, the architecture may fold, a star marks the frontier."""
    out = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        numeric = pd.api.types.is_numeric_dtype(table[name]) and name != "frontier"
        header, least = ("*", None) if name == "frontier" else (name, 12 if name == "architecture" else None)
        out.add_column(
            header, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric, min_width=least
        )
    for _, row in table.iterrows():
        out.add_row(
            *(
                ("*" if row[name] else "") if name == "frontier" else formatted(name, row[name])
                for name in columns
            )
        )
    return out


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON takes them: plain values, every digit, None for what is missing."""
    return [
        {
            str(name): None if pd.isna(value) else value.item() if hasattr(value, "item") else value
            for name, value in row.items()
        }
        for row in table.to_dict(orient="records")
    ]


def markdown(table: pd.DataFrame, columns: Sequence[str]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---" for _ in columns) + "|"]
    lines += [
        "| " + " | ".join(formatted(name, row[name]) for name in columns) + " |"
        for _, row in table.iterrows()
    ]
    return "\n".join(lines)
