"""What a search asks the device's latency table.

The table predicts which candidates break a constraint on latency and need not be measured, and what
objectives on latency will be. The gate rejects a candidate only where it breaks the constraint by more than
predictions are off: `frontrunner table validate` found how far that is for 95 of 100 models held out of the
same space. A candidate that the table cannot predict passes.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log
from typing import TypeVar

from operators import VisionLanguage
from operators.architecture import Architecture
from operators.base.errors import ConfigError, DeviceError, TableError
from operators.base.threads import torch_threads
from operators.vision.vision_language import Model
from profiler.device.device import open_device
from profiler.profile import ProfileSettings, key
from profiler.table.latency_table import LatencyTable, default_path
from profiler.table.parts import Point
from search.config.evaluation import TABLE_METRICS
from search.config.space import SpaceSettings
from search.config.vision import VisionSpaceSettings
from search.gates.screen import Check
from search.objectives import Constraint, Objective

LEAST_MODELS = 20  # held out: below, their 95th percentile is the largest error alone
MOST_MARGIN = 0.99  # a prediction may be off by more; a time that is shorter by all of it would be none

# The keys of a space that every digest has. A later key is left out of it where it has its default, so that
# tables made before there was such a key keep their digests.
FIRST_KEYS = frozenset(
    (
        *("operators", "widths", "min_depth", "max_depth", "genes", "meta_tokens", "norms"),
        *("normalized_head", "stages", "max_tries"),
    )
)

OfMetric = TypeVar("OfMetric", Constraint, Objective)


def predicted_points(wanted: Iterable[OfMetric], profile: ProfileSettings) -> dict[OfMetric, Point]:
    """Those constraints or objectives whose metric the table predicts, each with the point that it is of.

    profile: the batch sizes and contexts that metrics are named after.
    """
    points = {
        key(name, batch=batch, context=None if context == profile.contexts[0] else context): Point(
            phase, batch, context, profile.images, profile.picture
        )
        for name, phase in TABLE_METRICS.items()
        for context in profile.contexts
        for batch in profile.batch_sizes
    }
    return {item: points[item.metric] for item in wanted if item.metric in points}


def digest_of(settings: SpaceSettings, towers: VisionSpaceSettings | None = None) -> str:
    """What tells one search space from another.

    towers: where candidates see, what their towers and projectors may be.
    """
    left_out = {
        name
        for name, field in type(settings).model_fields.items()
        if name not in FIRST_KEYS and getattr(settings, name) == field.get_default(call_default_factory=True)
    }
    written = settings.model_dump_json(exclude=left_out) + (towers.model_dump_json() if towers else "")
    return hashlib.sha256(written.encode()).hexdigest()[:12]


def device_table(device: str, kinds: Sequence[str], *, threads: int) -> LatencyTable:
    """The latency table of a device.

    kinds: which the device must be of, where it is a GPU; empty for any.
    threads: that a CPU computes with.

    Raises DeviceError where this machine has no such device or it is an engine of others, TableError where
    the table is damaged.
    """
    opened = open_device(device)
    if opened.torch_device.type == "cuda" and kinds and not is_kind(opened.name, kinds[0]):
        raise DeviceError(f"device {device}: expected one of device_kind {kinds[0]}, got {opened.name}")
    with torch_threads(threads):
        return LatencyTable.open(default_path(opened), opened)


def is_kind(name: str, kind: str) -> bool:
    """Whether a device is of a kind.

    name: what its driver calls it, as `NVIDIA A100-SXM4-80GB`.
    kind: what Ray calls the kind, as `A100-80G`. The parts with a digit are compared, as `A100`.
    """
    words = set(re.split(r"[^A-Z0-9]+", name.upper()))
    return any(part in words for part in re.split(r"[^A-Z0-9]+", kind.upper()) if re.search(r"\d", part))


def known_costs(
    table: LatencyTable, points: Mapping[Objective, Point], members: Sequence[Architecture]
) -> dict[Objective, Callable[[Architecture], float]]:
    """Of objectives that the table predicts, the cost (`Objective.cost`) of an architecture.

    points: of the objectives, as `predicted_points` gives them.
    members: architectures that together have every layer of the space. Where the table lacks one of their
        layers, nothing is known.
    """
    if table.missing(members, tuple(points.values())):
        return {}

    def cost_of(objective: Objective, point: Point) -> Callable[[Architecture], float]:
        metric = objective.metric
        return lambda architecture: objective.cost({metric: _predicted(table, metric, point, architecture)})

    return {objective: cost_of(objective, point) for objective, point in points.items()}


def in_time(table: LatencyTable, points: Mapping[Constraint, Point]) -> Callable[[Architecture], bool]:
    """Whether an architecture is predicted to meet every constraint on latency.

    It leaves no margin for the table's error, as the gate does: it chooses a width and rejects no candidate.

    points: of the constraints, as `predicted_points` gives them.
    """

    def check(architecture: Architecture) -> bool:
        try:
            values = {
                each: _predicted(table, each.metric, point, architecture) for each, point in points.items()
            }
        except TableError:
            return False
        return not any(each.broken_by({each.metric: value}) for each, value in values.items())

    return check


def first_token_work(
    table: LatencyTable, points: Iterable[Point]
) -> Callable[[VisionLanguage], float] | None:
    """What trades keep: the natural logarithm of the predicted time to the first token.

    None where no point is of that time. The function raises TableError for a member that the table does not
    cover; `table_check` finds whether there are such.
    """
    point = next((point for point in points if point.phase == "first_token"), None)
    if point is None:
        return None

    def work(member: VisionLanguage) -> float:
        return log(table.latency(member, point).ms)

    return work


def table_check(
    table: LatencyTable,
    points: Mapping[Constraint, Point],
    members: Sequence[Model],
    *,
    space: str,
    device: str,
) -> Check:
    """The gate of the latency table.

    points: of the constraints, as `predicted_points` gives them.
    members: models that together have every part of the space.
    space: its digest (`digest_of`).
    device: for the command in an error.

    Raises ConfigError where the table does not cover the space or was not validated on it.
    """
    lacking = table.missing(members, tuple(points.values()))
    if lacking:
        raise ConfigError(
            f"gates.table: {table.path} lacks {len(lacking)} entries of this space; expected all: "
            f"`frontrunner table build CONFIG --device {device}` measures them"
        )
    margins = {each: _margin(table, each, point, space) for each, point in points.items()}

    def check(architecture: Model) -> str | None:
        for constraint, point in points.items():
            metric, margin = constraint.metric, margins[constraint]
            try:
                ms = table.latency(architecture, point).ms
            except TableError:
                continue
            likely = [_value(metric, point, ms / (1 + off)) for off in (-min(margin, MOST_MARGIN), margin)]
            if all(constraint.broken_by({metric: value}) for value in likely):
                return (
                    f"{metric} is predicted as {_value(metric, point, ms):.4g} and at most {margin:.1%} off, "
                    f"expected {constraint.relation} {constraint.bound:g}"
                )
        return None

    return check


def _margin(table: LatencyTable, constraint: Constraint, point: Point, space: str) -> float:
    """How far predictions are off for 95 of 100 models, relative to them. Raises ConfigError if unknown."""
    validation = table.validation(space, point)
    models = validation.models if validation else 0
    if validation is None or models < LEAST_MODELS:
        raise ConfigError(
            f"gates.table: {table.path} was validated on {models} models of this space where constraint "
            f"'{constraint}' applies; expected at least {LEAST_MODELS}: "
            "`frontrunner table validate CONFIG` measures them"
        )
    return validation.p95


def _predicted(table: LatencyTable, metric: str, point: Point, architecture: Architecture) -> float:
    """Raises TableError for an architecture that the table does not cover."""
    return _value(metric, point, table.latency(architecture, point).ms)


def _value(metric: str, point: Point, ms: float) -> float:
    """The metric of a step that takes so many milliseconds."""
    return point.batch / ms * 1e3 if metric.startswith("decode_tokens_per_s") else ms
