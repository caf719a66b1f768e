"""How benchmarks show their figures in a terminal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.console import Console

from search.benchmarks.benchmark import Figures
from search.view.tables import MARK, taint_notes
from search.view.terminal_tables import Sheet, sheet


@dataclass(frozen=True)
class Column:
    """A column of `by_model`.

    figure: name of the figure, without the model's.
    form: format specification of the number.
    scale: what the figure is multiplied by.
    timed: whether it is marked where the figure MODEL.tainted gives a reason.
    """

    figure: str
    form: str
    scale: float = 1
    timed: bool = False


def by_model(figures: Figures, models: Iterable[str], columns: Mapping[str, Column]) -> Sheet:
    """Returns a table with a row for each model, of the figures named MODEL.FIGURE.

    A cell is empty where there is no number.
    """
    rows, tainted = [], {}
    for model in models:
        reason = str(figures.get(f"{model}.tainted", ""))
        tainted[model] = [reason] if reason else []
        cells = [
            _cell(figures.get(f"{model}.{column.figure}"), column, reason) for column in columns.values()
        ]
        rows.append((model, *cells))
    return sheet(("model", *columns), rows, words=("model",), notes=taint_notes(tainted))


def _cell(value: object, column: Column, reason: str) -> str:
    if not isinstance(value, int | float):
        return ""
    return format(value * column.scale, column.form) + (MARK if reason and column.timed else "")


def print_figures(console: Console, figures: Figures) -> None:
    """Prints a line for each figure."""
    width = max(map(len, figures), default=0) + 2
    for name, value in figures.items():
        console.print(f"{name:<{width}}{value}", soft_wrap=True, markup=False)
