"""What `frontrunner table` does: layers and points of its sources, held-out models, cases for a record."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from operators.base.errors import ConfigError
from operators.vision.cost import memory_bytes_of
from operators.vision.vision_language import Model, VisionLanguage
from profiler.device.device import Device
from profiler.profile import ProfileSettings
from profiler.table.build import memory_for_models
from profiler.table.parts import Phase, Point
from profiler.table.validate import Accuracy, Case, accuracy
from profiler.vision_point import PICTURE
from search.config import run as config_module
from search.config.run import RunConfig
from search.gates.table import predicted_points
from search.objectives import Constraint
from search.runs.sources import run_or_model
from search.spaces.contract import Space
from search.spaces.free import ArchitectureSpace
from search.spaces.staged import make_space
from search.spaces.vision import VisionSpace, seeing_space

T = TypeVar("T")
_DRAWS = 100  # for each model that is held out, before the space is said to have too few
BATCHES, CONTEXTS, IMAGES = (1, 8), (1024,), 1  # of a model that is given without a run


@dataclass(frozen=True)
class Wanted:
    """What a table is to know.

    architectures: that together have every layer.
    points: to measure these layers at.
    device: of the runs among the sources; `cpu` where there are only models.
    threads: that a CPU computes with, of these runs too; 1 where there are only models.
    """

    architectures: tuple[Model, ...]
    points: tuple[Point, ...]
    device: str
    threads: int


def wanted(
    sources: Sequence[str],
    *,
    batches: Sequence[int] | None,
    contexts: Sequence[int] | None,
    device: str | None = None,
    threads: int | None = None,
    results: Path = Path("results"),
    changes: Sequence[str] = (),
) -> Wanted:
    """The layers of the sources and the points at which these are measured.

    sources: run files, runs and models (see `search.runs.sources`).
    batches: batch sizes; None for those that a run is measured with.
    contexts: tokens in the state; None for those that a run is measured with.
    device, threads: to measure with; None for those of the runs, which then have to agree.
    results: folder that holds the runs.
    changes: of keys of the run files, as in `space.max_depth=8`.

    Raises ConfigError and ArchitectureError.
    """
    architectures: list[Model] = []
    points: dict[Point, None] = {}
    devices, counts = dict[str, None](), dict[int, None]()  # of the runs, in their order
    for source in sources:
        given = run_or_model(source, results, changes)
        if isinstance(given, RunConfig):
            architectures += members_of(given)
            devices[given.device] = counts[given.profile.threads] = None
            of_batches = batches or given.profile.batch_sizes
            of_contexts = contexts or given.profile.contexts
            images, picture = given.profile.images, given.profile.picture
        else:
            architectures.append(given)
            of_batches, of_contexts = batches or BATCHES, contexts or CONTEXTS
            images, picture = IMAGES if isinstance(given, VisionLanguage) else 0, PICTURE
        phases: tuple[Phase, ...] = ("decode", "prefill", "first_token") if images else ("decode", "prefill")
        points |= {
            Point(phase, batch, context, images, picture): None
            for batch in of_batches
            for context in of_contexts
            for phase in phases
        }
    return Wanted(
        tuple(architectures),
        tuple(points),
        device or _agreed("--device", devices, "cpu"),
        threads or _agreed("--threads", counts, 1),
    )


def _agreed(option: str, of_runs: Iterable[T], otherwise: T) -> T:
    """What the runs say alike; `otherwise` where there is no run. Raises ConfigError where they differ."""
    several = [*of_runs]
    if len(several) > 1:
        raise ConfigError(f"{option}: expected one, as the runs have {' and '.join(map(str, several))}")
    return several[0] if several else otherwise


def load_space(path: Path, changes: Sequence[str] = ()) -> RunConfig:
    """The run file at that path, or the shipped one of that name, with changes of its keys.

    Raises ConfigError for anything else.
    """
    if not config_module.find_config(path).is_file():
        raise ConfigError(
            f"{path}: expected the YAML file of a run, whose search space models are drawn from"
        )
    return config_module.load(path, changes)


def default_points(profile: ProfileSettings, constraints: Sequence[Constraint]) -> tuple[Point, ...]:
    """Where a table is validated for a run, all at its first context, and where it has constraints.

    That is decoding at each of its batch sizes, and reading a prompt at the first: for models that see, from
    the pictures on.
    """
    context, images = profile.contexts[0], (profile.images, profile.picture)
    decode = [Point("decode", batch, context, *images) for batch in profile.batch_sizes]
    phase: Phase = "first_token" if profile.images else "prefill"
    prefill = Point(phase, profile.batch_sizes[0], context, *images)
    return tuple(dict.fromkeys([*decode, prefill, *predicted_points(constraints, profile).values()]))


def space_of(run: RunConfig) -> ArchitectureSpace | VisionSpace:
    """All that a run may try, without its gates."""
    space = make_space(run.space, run.data.vocabulary)
    return space if run.vision is None else seeing_space(run.vision.space, space)


def members_of(run: RunConfig) -> Sequence[Model]:
    """Models that together have every part of what the run may try."""
    return space_of(run).covering()


def held_out(
    space: ArchitectureSpace | VisionSpace, count: int, *, seed: int, points: Sequence[Point], device: Device
) -> tuple[Model, ...]:
    """Distinct models drawn at random, of those that fit the device's memory at every point.

    Raises ConfigError for a space of fewer.
    """
    memory = memory_for_models(device)

    def bytes_at(model: Model, point: Point) -> int:
        return memory_bytes_of(model, point.batch, point.context, point.images, dtype=device.dtype)

    def fits(model: Model) -> bool:
        return all(bytes_at(model, point) <= memory for point in points)

    fitting: Space[Any] = replace(cast("Any", space), accepts=fits)
    rng, drawn = np.random.default_rng(seed), dict[str, Model]()
    for _ in range(_DRAWS * count):
        member = fitting.sample(rng)
        drawn.setdefault(fitting.key(member), member)
        if len(drawn) == count:
            return tuple(drawn.values())
    raise ConfigError(
        f"space: {len(drawn)} different architectures in {_DRAWS * count} draws; "
        f"expected {count}: hold out fewer"
    )


def named(point: Point) -> str:
    return f"{point.phase} b{point.batch} c{point.context}"


def accuracy_figures(cases: Mapping[Point, list[Case]]) -> dict[str, Accuracy]:
    return {f"{point.phase}@b{point.batch}": accuracy(of_point) for point, of_point in cases.items()}


def samples(cases: Mapping[Point, list[Case]]) -> list[dict[str, Any]]:
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
        for of_point in cases.values()
        for case in of_point
    ]
