"""Plots the law: loss against latency, a curve for each depth."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from search.evaluation.figures import axis_label
from search.pareto import nondominated
from search.studies.law.fit import Law
from search.studies.law.pick import LatencyLaw, Shape
from search.view.frontier_plot import plt, write_figure


def plot_law(
    losses: Mapping[Shape, float],
    decode_ms: Mapping[Shape, float],
    path: Path,
    *,
    metric: str,
    quantity: str,
    title: str,
    law: tuple[Law, LatencyLaw, int] | None,
    tainted: frozenset[Shape] = frozenset(),
) -> None:
    """Plots the shapes (depth, width) that have both figures, the frontier ringed and joined.

    losses: by shape.
    decode_ms: by shape.
    path: of the file; it ends in .png, .pdf or .svg.
    law: the law of the loss, the law of the latency, and the tokens trained, drawn dashed for every depth;
        None draws none.
    tainted: shapes whose latency is not to be trusted, drawn hollow.
    """
    shapes = sorted(set(losses) & set(decode_ms))
    points = np.array([(decode_ms[shape], losses[shape]) for shape in shapes]).reshape(-1, 2)
    depths = sorted({depth for depth, _ in shapes})
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(depths)))
    figure, axes = plt.subplots(figsize=(8, 5), dpi=130, layout="constrained")
    for depth, colour in zip(depths, colours, strict=True):
        mine = [number for number, shape in enumerate(shapes) if shape[0] == depth]
        axes.plot(*points[mine].T, "o-", color=colour, ms=4, lw=1.2, label=f"depth {depth}")
        hollow = [number for number in mine if shapes[number] in tainted]
        axes.plot(*points[hollow].T, "o", color=colour, mfc="white", ms=4)
        if law is not None:
            losses_law, latency, tokens = law
            widths = np.geomspace(min(w for _, w in shapes), max(w for _, w in shapes), 60)
            axes.plot(
                latency.ms(depth, widths),
                losses_law.loss(depth, widths, tokens),
                "--",
                color=colour,
                lw=0.8,
                alpha=0.7,
            )
    best = np.flatnonzero(nondominated(points))
    best = best[np.argsort(points[best, 0])]
    axes.plot(
        *points[best].T, "o-", color="crimson", mfc="none", ms=10, lw=1, alpha=0.8, label="frontier", zorder=0
    )
    for number in best:
        axes.annotate(
            f"{shapes[number][1]}",
            points[number],
            xytext=(6, 6),
            textcoords="offset points",
            fontsize=8,
            color="crimson",
        )
    if tainted & set(shapes):
        axes.plot([], [], "o", color="0.4", mfc="white", ms=4, label="tainted: not to be trusted")
    if law is not None:
        axes.plot([], [], "--", color="0.4", lw=0.8, label="the law")
    axes.set(
        xlabel=axis_label(metric),
        ylabel="loss [nats/token]" if quantity == "loss" else quantity,
        title=f"{title}; numbers are widths",
    )
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    write_figure(figure, path)
