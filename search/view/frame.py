"""A table of candidates: columns and rows, which is sorted, and written as JSON or CSV.

It holds what a pandas frame of the same rows would. The commands do without pandas, which takes longer to
import than all that they do with it; the Python API makes a pandas frame of it.
"""

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from operators.base.errors import ConfigError
from search.evaluation.figures import exact_value

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Frame:
    """Rows with the same columns.

    columns: names.
    rows: by name of the column; None is a missing value.
    figures: columns that keep whole numbers where values are missing. In other columns they become floats.
    """

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    figures: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.rows]

    def head(self, count: int) -> "Frame":
        """The first rows."""
        return Frame(self.columns, self.rows[:count], self.figures)

    def pandas(self) -> "pd.DataFrame":
        """The same as a pandas frame. Whole numbers among missing values are of type `Int64`."""
        import pandas as pd  # takes half a second to import

        table = pd.DataFrame([dict(row) for row in self.rows], columns=list(self.columns))
        for name in self.figures:
            values = [value for value in self.column(name) if value is not None]
            if values and all(isinstance(value, int) for value in values):
                table[name] = table[name].astype("Int64")  # unlike int64 it allows missing values
        if "frontier" in self.columns:
            table["frontier"] = table["frontier"].astype(bool)  # without rows too, as it selects rows
        return table


def frame_of(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], figures: Collection[str] = ()
) -> Frame:
    """The frame of rows in which values may be absent or NaN.

    columns: names in their order.
    figures: names of metrics, whose whole numbers stay whole.
    """
    uniform = {name: _uniform([row.get(name) for row in rows], name, name in figures) for name in columns}
    values = zip(*uniform.values(), strict=True)
    return Frame(
        tuple(uniform),
        tuple(dict(zip(uniform, row, strict=True)) for row in values),
        frozenset(figures) & set(uniform),
    )


def _uniform(values: Sequence[Any], name: str, figure: bool) -> list[Any]:
    """The values of a column, numbers as one type, and None for NaN."""
    column = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
    present = [value for value in column if value is not None]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return column
    if figure and all(isinstance(exact_value(name, value), int) for value in present):
        return [value if value is None else int(value) for value in column]
    if len(present) == len(column) and all(isinstance(value, int) for value in present):
        return column
    return [value if value is None else float(value) for value in column]


def sorted_by(table: Frame, name: str, *, descending: bool = False) -> Frame:
    """The rows sorted by a column, rows without a value last. Raises ConfigError for an unknown column."""
    if name not in table.columns:
        raise ConfigError(f"unknown column {name!r}: expected one of {', '.join(table.columns)}")
    with_value = [row for row in table.rows if row[name] is not None]
    without = [row for row in table.rows if row[name] is None]
    ordered = sorted(with_value, key=lambda row: row[name], reverse=descending)
    return Frame(table.columns, (*ordered, *without), table.figures)


def records(table: Frame) -> list[dict[str, Any]]:
    """The rows as plain values for JSON: all digits, lists as lists, and None for missing values."""
    return [{name: _plain(value) for name, value in row.items()} for row in table.rows]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_text(table: Frame) -> str:
    """All columns as CSV.

    A list becomes text: numbers as `2 7 18`, reasons with semicolons. Text that a spreadsheet would take for
    a formula begins with `'`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_csv_cell(value) for value in row.values()] for row in table.rows)
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list):
        value = "; ".join(value) if value and isinstance(value[0], str) else " ".join(map(str, value))
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
