"""Draws images with the questions on them, and with what a model answered."""

import textwrap
from collections.abc import Sequence
from math import ceil
from pathlib import Path

from search.runs.answering import Answered
from search.view.frontier_plot import plot_format, plt, write_figure

_COLUMNS = 4
_LETTERS = 30  # of a line under a picture
_LINES = 3  # of a question
_RIGHT, _WRONG = "#1a7f37", "#b3261e"


def draw_answers(answered: Sequence[Answered], path: Path, *, title: str) -> None:
    """Writes a grid of pictures. Right answers have a check mark, wrong ones a cross and the right one.

    path: file that ends in .png, .pdf or .svg.

    Raises ConfigError.
    """
    plot_format(path, option="--to")
    rows = ceil(len(answered) / _COLUMNS)
    figure, grid = plt.subplots(
        rows, _COLUMNS, figsize=(2.6 * _COLUMNS, 3.5 * rows), dpi=110, squeeze=False, layout="constrained"
    )
    for axes in grid.flat:
        axes.axis("off")
    for axes, each in zip(grid.flat, answered, strict=False):
        axes.imshow(each.image, interpolation="nearest")
        axes.set_title(_wrapped(each.question), fontsize=9)
        said = f"✓ {_wrapped(each.written)}" if each.exact else _mistake(each)
        axes.text(
            0.5, -0.04, said, transform=axes.transAxes, ha="center", va="top", fontsize=10,
            color=_RIGHT if each.exact else _WRONG,
        )  # fmt: skip
    figure.suptitle(title, fontsize=11)
    write_figure(figure, path)


def _mistake(each: Answered) -> str:
    return f"✗ {_wrapped(each.written) or 'nothing'}\nright: {_wrapped(each.right)}"


def _wrapped(text: str) -> str:
    # matplotlib reads what stands between two dollars as a formula.
    return textwrap.fill(text, _LETTERS, max_lines=_LINES, placeholder=" …").replace("$", r"\$")
