"""Plots of a run."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from operators.files import write_whole
from search.frontier import costs, frontier_of, scored
from search.ledger import Entry
from search.objectives import METRICS, Objective

mpl.use("Agg")

from matplotlib import pyplot as plt


def axis_label(metric: str) -> str:
    """`decode_ms [ms], batch 1, context 32768, H100`."""
    plain, _, kind = metric.partition("/")
    base, _, where = plain.partition("@")
    unit, words = METRICS[base].unit, {"b": "batch", "c": "context"}
    parts = [f"{words[part[0]]} {part[1:]}" for part in where.split(".") if part]
    return ", ".join([f"{base} [{unit}]" if unit else base, *parts, *([kind] if kind else [])])


def plot_frontier(
    entries: Sequence[Entry], objectives: Sequence[Objective], path: Path, *, title: str, first: int
) -> None:
    """Writes a PNG: every scored candidate over the last and the first objective, the frontier as a line with its members' ids.

    first: how many proposals are shown as the first ones.
    """
    candidates = scored(entries, objectives)
    shown = (objectives[-1], objectives[0])
    points = np.abs(costs(candidates, shown))
    frontier = {entry.number for entry in frontier_of(entries, objectives)}
    initial = np.array([entry.number < first for entry in candidates], dtype=bool)
    best = np.array([entry.number in frontier for entry in candidates], dtype=bool)

    figure, axes = plt.subplots(figsize=(8, 5), dpi=130, layout="constrained")
    order = np.array([entry.order or 0 for entry in candidates])
    if initial.any():
        axes.scatter(
            *points[initial].T, s=34, facecolors="none", edgecolors="0.55", label=f"first {first} proposals"
        )
    if (~initial).any():
        marks = axes.scatter(*points[~initial].T, s=34, c=order[~initial], cmap="viridis", label="later ones")
        figure.colorbar(marks, ax=axes, label="evaluation number")
    label = {"fontsize": 8, "color": "crimson"}
    line = np.flatnonzero(best)
    line = line[np.argsort(points[line, 0])]
    step = "post" if not shown[0].maximize else "pre"
    axes.plot(*points[line].T, drawstyle=f"steps-{step}", color="crimson", lw=1.4, zorder=0, label="frontier")
    for place, index in enumerate(line):
        above = (
            {"xytext": (0, 7), "va": "bottom"} if place % 2 else {"xytext": (0, -7), "va": "top"}
        )  # neighbours stay legible
        axes.annotate(
            str(candidates[index].number),
            points[index],
            **above,
            ha="center",
            textcoords="offset points",
            **label,
        )
    axes.set(xlabel=axis_label(shown[0].metric), ylabel=axis_label(shown[1].metric), title=title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    plt.close(figure)
    write_whole(path, content.getvalue())
