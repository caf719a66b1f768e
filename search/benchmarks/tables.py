"""How benchmarks show their figures in a terminal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from search.benchmarks.benchmark import Figures


@dataclass(frozen=True)
class Column:
    """A column of `by_model`.

    figure: name of the figure, without the model's.
    form: format specification of the number.
    scale: what the figure is multiplied by.
    """

    figure: str
    form: str
    scale: float = 1


def by_model(figures: Figures, models: Iterable[str], columns: Mapping[str, Column]) -> Table:
    """A row for each model, with the figures named MODEL.FIGURE. A cell is empty where there is no number."""
    shown = Table(header_style="bold")
    for title in ("model", *columns):
        shown.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for model in models:
        values = [(figures.get(f"{model}.{column.figure}"), column) for column in columns.values()]
        shown.add_row(
            model,
            *(
                format(value * column.scale, column.form) if isinstance(value, int | float) else ""
                for value, column in values
            ),
        )
    return shown


def print_figures(console: Console, figures: Figures) -> None:
    """A line for each figure."""
    width = max(map(len, figures), default=0) + 2
    for name, value in figures.items():
        console.print(f"{name:<{width}}{value}", soft_wrap=True, markup=False)
