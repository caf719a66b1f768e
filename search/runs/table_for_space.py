"""What `frontrunner table` does: sources to layers, progress while building, held-out models, and tables for a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from operators.architecture import Architecture
from operators.base.errors import ConfigError
from operators.cost import cost
from profiler.device.device import Device
from profiler.table.build import memory_for_models
from profiler.table.parts import Point
from profiler.table.validate import Accuracy, Case, accuracy
from search.config import run as config_module
from search.config.run import RunConfig
from search.gates.table import constrained_points, members
from search.runs.sources import run_or_architecture
from search.spaces.free import ArchitectureSpace
from search.spaces.staged import make_space

_DRAWS = 100  # for each model that is held out, before the space is said to have too few


@dataclass(frozen=True)
class Wanted:
    """What a table is to know: architectures that together have every layer, and the points to measure these at."""

    architectures: tuple[Architecture, ...]
    points: tuple[Point, ...]


def wanted(
    sources: Sequence[str],
    *,
    batches: Sequence[int] | None,
    contexts: Sequence[int] | None,
    results: Path = Path("results"),
) -> Wanted:
    """Of run files, runs and models (see `search.runs.sources`); `batches` and `contexts` replace those that a run is measured with.

    Raises ConfigError and ArchitectureError.
    """
    architectures: list[Architecture] = []
    points: dict[Point, None] = {}
    for source in sources:
        given = run_or_architecture(source, results)
        run = given if isinstance(given, RunConfig) else None
        architectures += [given] if isinstance(given, Architecture) else members(space_of(given))
        for batch in batches or (run.profile.batch_sizes if run else (1, 8)):
            for context in contexts or (run.profile.contexts if run else (1024,)):
                points |= dict.fromkeys((Point("decode", batch, context), Point("prefill", batch, context)))
    return Wanted(tuple(architectures), tuple(points))


def space_of(run: RunConfig) -> ArchitectureSpace:
    return make_space(run.space, run.data.vocabulary)


def load_space(path: Path) -> RunConfig:
    """The run file at that path, or the shipped one of that name. Raises ConfigError for anything else."""
    if not config_module.find_config(path).is_file():
        raise ConfigError(
            f"{path}: expected the YAML file of a run, whose search space models are drawn from"
        )
    return config_module.load(path)


def default_points(run: RunConfig) -> tuple[Point, ...]:
    """Decoding at each of the run's batch sizes, reading a prompt at the first, with its first context; and where it has constraints."""
    batches, context = run.profile.batch_sizes, run.profile.contexts[0]
    decode, prefill = (
        (Point("decode", batch, context) for batch in batches),
        (Point("prefill", batch, context) for batch in batches[:1]),
    )
    return tuple(dict.fromkeys([*decode, *prefill, *constrained_points(run).values()]))


def held_out(
    space: ArchitectureSpace, count: int, *, seed: int, points: Sequence[Point], device: Device
) -> tuple[Architecture, ...]:
    """Distinct models drawn at random, of those that fit the device's memory at every point. Raises ConfigError for a space of fewer."""
    memory = memory_for_models(device)

    def fits(architecture: Architecture) -> bool:
        costs = [
            cost(architecture, batch=point.batch, context=point.context, dtype=device.dtype)
            for point in points
        ]
        return all(found.param_bytes + found.state_bytes <= memory for found in costs)

    fitting, rng = replace(space, accepts=fits), np.random.default_rng(seed)
    found: dict[str, Architecture] = {}
    for _ in range(_DRAWS * count):
        member = fitting.sample(rng)
        found.setdefault(fitting.key(member), member)
        if len(found) == count:
            return tuple(found.values())
    raise ConfigError(
        f"space: {len(found)} different architectures in {_DRAWS * count} draws; expected {count}: hold out fewer"
    )


def named(point: Point) -> str:
    return f"{point.phase} b{point.batch} c{point.context}"


def accuracy_figures(found: dict[Point, list[Case]]) -> dict[str, Accuracy]:
    return {f"{point.phase}@b{point.batch}": accuracy(cases) for point, cases in found.items()}


def samples(found: dict[Point, list[Case]]) -> list[dict[str, Any]]:
    """Every case as JSON takes it: what a record or a script needs to compute the figures again."""
    return [
        {
            "architecture": case.architecture.model_dump(mode="json"),
            **case.point._asdict(),
            "params": case.params,
            "predicted_ms": case.predicted.ms,
            "predicted_error_ms": case.predicted.error_ms,
            "measured_ms": case.measured.median_ms,
            "iqr_ms": case.measured.iqr_ms,
            "n": case.measured.n,
            "stopped_by": case.measured.stopped_by,
            "drift": case.drift,
            "tainted": case.tainted,
        }
        for cases in found.values()
        for case in cases
    ]
