"""Benchmark: a real search beside random search and beside published designs.

A searcher is worth its complexity where it finds more than random search does in the same time. What it finds
is worth the time where it beats designs that people published, rescaled to the space's widths.

    frontrunner bench search --device cuda

Both searches are runs of configs/h100_small.yaml under names of their own. They go on where an earlier try of
the benchmark ended. With N GPUs each takes an Nth of the time, so that the time of GPUs is the same. The
designs are trained and measured as every candidate is, at each width of the space at which they meet the
constraints.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from rich.console import Console

from operators.cost import parameters
from search import pareto
from search.benchmarks import runs as runs_of
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.record import folder
from search.config.run import RunConfig
from search.evaluation.fidelity import proxy_of
from search.evaluation.figures import axis_label
from search.runs.entry import Entry
from search.runs.frontier import scored
from search.runs.preflight import prepare_run
from search.runs.worker_time import searched, worker_seconds
from search.studies import experiment
from search.studies.experiment import Wanted
from search.studies.parallel import train_ahead

SEARCHERS = ("guided", "random")
_MOMENTS = (0.25, 0.5, 0.75, 1.0)  # of the time of the shorter search


@dataclass(frozen=True)
class Design:
    """A published design at one width. loss and ms: None where it failed for the `problem`."""

    name: str
    width: int
    depth: int
    params: int
    loss: float | None
    ms: float | None
    problem: str = ""


def search_and_compare(device: str, console: Console) -> Measured:
    """Hypervolumes, gains over the designs, the candidates of both searches, the designs, and the plot."""
    config = runs_of.load(device)
    if config.time_s is not None:
        config = config.model_copy(update={"time_s": config.time_s / config.workers})
    figures: Figures = {
        "workers": config.workers,
        "compile_before_s": round(runs_of.prepare_kernels(device, console), 1),
    }
    searches = {
        name: runs_of.searched(config, name=f"search-{name}", searcher=name, console=console)
        for name in SEARCHERS
    }
    runs = {name: entries for name, (entries, _) in searches.items()}
    designs, of_designs = _designs(config, console)
    for name, entries in runs.items():
        figures |= {f"{name}.{key}": value for key, value in _spent(entries, config.workers).items()}
    for moment, volumes in volumes_over_time(runs, config).items():
        figures |= {f"{name}.hypervolume@{moment:.0%}": volume for name, volume in volumes.items()}
    gains = {design: gain(design, runs["guided"], config) for design in designs if not design.problem}
    known = [gained for gained in gains.values() if gained is not None]
    figures |= {
        "designs": len(designs),
        "designs_measured": len(gains),
        "designs_as_fast_as_a_candidate": len(known),
    }
    figures |= {"gain_least": min(known), "gain_median": float(np.median(known))} if known else {}
    rows = {name: [runs_of.row(entry) for entry in entries] for name, entries in runs.items()}
    compared = [{**vars(design), "gain": gains.get(design)} for design in designs]
    folders = [of_designs, *(path for _, path in searches.values())]
    return Measured(figures, {**rows, "designs": compared}, {"png": _plot(runs, designs, config)}, folders)


def _designs(config: RunConfig, console: Console) -> tuple[list[Design], Path]:
    settings = runs_of.member_settings(config, tokens=config.proxy.tokens)
    path, designs = folder("designs", settings, settings.data, settings.device), []
    with experiment.session(settings, results=path.parent, name=path.name, console=console) as at:
        wanted = {
            member: Wanted(
                f"{member.name} width {member.width}",
                proxy_of(member, config.fidelity.width_scale),
                config.proxy,
                config.seed,
            )
            for member in prepare_run(config).space.designs()
        }
        experiment.prepare_kernels(
            at, [*wanted, *(one.architecture for one in wanted.values())], measured=True
        )
        train_ahead(at, wanted.values())
        for member, one in wanted.items():
            latency, training = experiment.measured(at, one.label, member), experiment.trained(at, one)
            ms, problem = latency.decode_ms.get(runs_of.latency(config)), latency.problem or training.reason
            designs.append(
                Design(
                    member.name, member.width, member.depth, parameters(member), training.loss, ms, problem
                )
            )
    return designs, path


def gain(design: Design, entries: Sequence[Entry], config: RunConfig) -> float | None:
    """The design's loss less that of the best candidate that decodes no slower (nats per token).

    None where no candidate is as fast.
    """
    wanted = config.parsed_objectives()
    as_fast = [
        entry.evaluation.metrics["loss"]
        for entry in scored(entries, wanted).entries
        if entry.evaluation and _ms(entry, config) <= (design.ms or 0)
    ]
    return (design.loss or 0) - min(as_fast) if as_fast else None


def volumes_over_time(
    runs: Mapping[str, Sequence[Entry]], config: RunConfig
) -> dict[float, dict[str, float]]:
    """Share of the time of the shorter search -> name -> hypervolume of its frontier by then.

    Objectives are scaled to [0, 1] over the scored candidates of all searches, with the reference at 1.1.
    """
    wanted = config.parsed_objectives()
    everything = np.concatenate([scored(entries, wanted).costs for entries in runs.values()])
    low, high = everything.min(0), everything.max(0)
    whole = min(searched(entries) for entries in runs.values())
    volumes: dict[float, dict[str, float]] = {}
    for moment in _MOMENTS:
        volumes[moment] = {}
        for name, entries in runs.items():
            by_then = [
                entry for entry in entries if entry.ended and searched(entries, entry.ended) <= moment * whole
            ]
            points = scored(by_then, wanted).costs
            unit = (points - low) / np.where(high > low, high - low, 1.0)
            volumes[moment][name] = pareto.hypervolume(unit, np.full(len(wanted), 1.1)) if len(unit) else 0.0
    return volumes


def _spent(entries: Sequence[Entry], workers: int) -> Figures:
    seconds, purposes = searched(entries), worker_seconds(entries, workers=workers, now=None)
    ended = [entry.evaluation for entry in entries if entry.evaluation]
    startup = sum(evaluation.proxy.startup_s for evaluation in ended if evaluation.proxy)
    return {
        "search_s": round(seconds, 1),
        "candidates": len(ended),
        "candidates_per_device_hour": 3600 * len(ended) / (seconds * workers),
        **runs_of.statuses(entries),
        **{f"{purpose}_s": round(spent, 1) for purpose, spent in purposes.items()},
        "startup_of_trainings_s": round(startup, 1),
        "busy": (purposes.get("train", 0.0) + purposes.get("profile", 0.0) - startup) / (seconds * workers),
    }


def _ms(entry: Entry, config: RunConfig) -> float:
    return entry.evaluation.metrics[runs_of.latency(config)] if entry.evaluation else float("inf")


def _plot(runs: Mapping[str, Sequence[Entry]], designs: Sequence[Design], config: RunConfig) -> bytes:
    """Loss over latency: the candidates and the frontier of each search, and the designs."""
    wanted = config.parsed_objectives()
    figure, axes = plt.subplots(figsize=(8, 5), dpi=130, layout="constrained")
    for (name, entries), color in zip(runs.items(), ("crimson", "0.5"), strict=True):
        candidates = scored(entries, wanted).entries
        points = np.array(
            sorted(
                (_ms(entry, config), entry.evaluation.metrics["loss"])
                for entry in candidates
                if entry.evaluation
            )
        )
        best = np.minimum.accumulate(points[:, 1])
        axes.scatter(*points.T, s=14, color=color, alpha=0.5)
        axes.step(
            points[:, 0], best, where="post", color=color, label=f"{name}, {len(candidates)} candidates"
        )
    known = [design for design in designs if not design.problem]
    for name, marker in zip(sorted({design.name for design in known}), "sD^vP*X", strict=False):
        shown = [(design.ms, design.loss) for design in known if design.name == name]
        axes.scatter(
            *zip(*shown, strict=True), s=42, marker=marker, edgecolors="black", facecolors="none", label=name
        )
    axes.set(
        xlabel=axis_label(runs_of.latency(config)),
        ylabel=axis_label("loss"),
        title="searches in the same time",
    )
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    plt.close(figure)
    return content.getvalue()


BENCHMARK = Benchmark(
    "search", "a real search beside random search and beside published designs", search_and_compare
)
