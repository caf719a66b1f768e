"""Plots of a run's candidates and frontier."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize

from operators.base.errors import ConfigError
from operators.base.files import write_whole
from search import pareto
from search.evaluation.figures import axis_label
from search.objectives import Constraint, Objective, qualifies
from search.runs.entry import Entry
from search.runs.frontier import scored

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
_DRAWN = 3  # most objectives that a plot shows: two on the axes and one as colour
_FRONTIER = "crimson"
_COLOURS = "viridis"


def plot_format(path: Path, *, option: str = "--plot") -> str:
    """The format of a file's ending. Raises ConfigError for endings other than .png, .pdf and .svg.

    option: the command-line option that the path came from, for the error.
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ConfigError(f"{option} {path}: expected a file that ends in .png, .pdf or .svg")
    return ending


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a figure in the format of the file's ending, and closes the figure. Raises ConfigError.

    The same picture gives the same bytes.
    """
    form, content = plot_format(path), io.BytesIO()
    # matplotlib would write the present time into these formats.
    dates: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(content, format=form, metadata=dates.get(form))
    plt.close(figure)
    write_whole(path, content.getvalue())


def plot_frontier(
    entries: Sequence[Entry],
    objectives: Sequence[Objective],
    path: Path,
    *,
    title: str,
    first: int,
    where: Sequence[Constraint] = (),
) -> None:
    """Plots every scored candidate. Members of the frontier have a ring and their id.

    One objective is drawn over the number of the evaluation. With two objectives the second is the horizontal
    axis, and the frontier is a staircase. With three the third is the colour; a staircase of two objectives
    would be wrong. Further objectives are named as not drawn.

    entries: the run's ledger.
    path: file that ends in .png, .pdf or .svg.
    title: title of the plot.
    first: number of first proposals, which are drawn as squares.
    where: only candidates that meet all of these are drawn.
    """
    plot_format(path)
    complete = scored(entries, objectives)
    drawn = [
        index
        for index, entry in enumerate(complete.entries)
        if entry.evaluation and qualifies(entry.evaluation.metrics, where)
    ]
    candidates = [complete.entries[index] for index in drawn]
    values = complete.costs[drawn] * [-1 if each.maximize else 1 for each in objectives]
    order = np.array([entry.order or 0 for entry in candidates], dtype=float)
    numbers = {entry.number for entry in complete.frontier(where)}
    best = np.array([entry.number in numbers for entry in candidates], dtype=bool)
    x, y, colour, labels = _axes(values, order, objectives)

    figure, axes = plt.subplots(figsize=(8, 5), dpi=130, layout="constrained")
    _points(figure, axes, candidates, (x, y, colour), objectives[:_DRAWN], first=first, label=labels[2])
    axes.scatter(x[best], y[best], s=90, facecolors="none", edgecolors=_FRONTIER, lw=1.4, label="frontier")
    if len(objectives) == 1:
        so_far = np.argsort(order, kind="stable")
        running = (np.maximum if objectives[0].maximize else np.minimum).accumulate(y[so_far])
        axes.plot(
            x[so_far], running, drawstyle="steps-post", color=_FRONTIER, lw=1.4, zorder=0, label="best so far"
        )
    elif len(objectives) == 2:
        _staircase(axes, x, y, objectives)
    _number(axes, candidates, x, y, np.flatnonzero(best))
    title = (
        title
        if len(objectives) <= _DRAWN
        else f"{title}\nnot drawn: {', '.join(each.metric for each in objectives[_DRAWN:])}"
    )
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    write_figure(figure, path)


def _axes(
    values: np.ndarray, order: np.ndarray, objectives: Sequence[Objective]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, str, str]]:
    """The horizontal, vertical and colour values of the points, each [n], and the labels of the three.

    values: objectives of the candidates [n, objectives].
    order: numbers of their evaluations [n].
    """
    names, evaluation = [axis_label(each.metric) for each in objectives], "evaluation number"
    if len(objectives) == 1:
        return order, values[:, 0], order, (evaluation, names[0], evaluation)
    colour, called = (order, evaluation) if len(objectives) == 2 else (values[:, 2], names[2])
    return values[:, 1], values[:, 0], colour, (names[1], names[0], called)


def _points(
    figure: Figure,
    axes: Axes,
    candidates: Sequence[Entry],
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
    objectives: Sequence[Objective],
    *,
    first: int,
    label: str,
) -> None:
    """Draws the candidates: first proposals as squares, later ones as circles, tainted ones hollow.

    drawn: horizontal, vertical and colour values, each [n].
    first: number of first proposals.
    label: label of the colour bar.
    """
    x, y, colour = drawn
    early = np.array([entry.number < first for entry in candidates], dtype=bool)
    metrics = {each.metric for each in objectives}
    hollow = np.array([bool(metrics & entry.tainted().keys()) for entry in candidates], dtype=bool)
    norm, colours = Normalize(colour.min(), colour.max()), plt.get_cmap(_COLOURS)
    both = early.any() and (~early).any()
    names = (f"first {early.sum()} proposals", "later ones") if both else ("candidates", "candidates")
    for chosen, marker, name in ((early, "s", names[0]), (~early, "o", names[1])):
        if chosen.any():
            axes.scatter([], [], s=34, marker=marker, color="0.4", label=name)
        for shown, filled in ((chosen & ~hollow, True), (chosen & hollow, False)):
            paint = colours(norm(colour[shown]))
            faces = paint if filled else "none"
            axes.scatter(x[shown], y[shown], s=34, marker=marker, facecolors=faces, edgecolors=paint)
    if hollow.any():
        axes.scatter([], [], s=34, facecolors="none", edgecolors="0.4", label="tainted: not to be trusted")
    figure.colorbar(plt.cm.ScalarMappable(norm, colours), ax=axes, label=label)


def _staircase(axes: Axes, x: np.ndarray, y: np.ndarray, objectives: Sequence[Objective]) -> None:
    """Draws the staircase through the candidates that no other one dominates.

    Further members of the frontier lie off it: they are dominated by less than the errors of measuring.
    """
    signs = [-1 if each.maximize else 1 for each in (objectives[1], objectives[0])]
    line = np.flatnonzero(pareto.nondominated(np.stack([x, y], -1) * signs))
    line = line[np.argsort(x[line], kind="stable")]
    # Between two members the best y is that of the left one, or of the right one if a larger x is better.
    step = "pre" if objectives[1].maximize else "post"
    axes.plot(x[line], y[line], drawstyle=f"steps-{step}", color=_FRONTIER, lw=1.4, zorder=0)


def _number(
    axes: Axes, candidates: Sequence[Entry], x: np.ndarray, y: np.ndarray, members: np.ndarray
) -> None:
    """Writes the ids of members above and below in turns, so that neighbours stay legible."""
    for place, index in enumerate(members[np.argsort(x[members], kind="stable")]):
        above = place % 2
        axes.annotate(
            str(candidates[index].number),
            (x[index], y[index]),
            xytext=(0, 9 if above else -9),
            va="bottom" if above else "top",
            ha="center",
            textcoords="offset points",
            fontsize=8,
            color=_FRONTIER,
        )
