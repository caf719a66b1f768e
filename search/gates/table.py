"""What a search asks the device's latency table.

The table predicts which candidates break a constraint on latency and need not be measured, and what
objectives on latency will be. The gate rejects a candidate only where it breaks the constraint by more than
predictions are off: `frontrunner table validate` found how far that is for 95 of 100 models held out of the
same space. A candidate that the table cannot predict passes.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import log
from typing import Any, TypeVar

from operators import VisionLanguage
from operators.architecture import MAX_DEPTH, Architecture
from operators.base.errors import ConfigError, DeviceError, TableError
from operators.base.threads import torch_threads
from operators.vision.vision_language import Model
from profiler.device.device import open_device
from profiler.profile import ProfileSettings, key
from profiler.table.latency_table import LatencyTable, default_path
from profiler.table.parts import Point
from search.config.choices import normalized
from search.config.evaluation import TABLE_METRICS
from search.config.space import SpaceSettings
from search.config.vision import VisionSpaceSettings
from search.gates.screen import Check
from search.objectives import Constraint, Objective
from search.searchers.guided import Known
from search.spaces.free import ArchitectureSpace
from search.spaces.vision import Genes, VisionSpace

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

# Genes that decide the parts of a tower and a projector: those that every part depends on, and those of
# attention, of the feed-forward network, and of the projector.
_OF_ALL = ("image_size", "patch_size", "width")
_TOGETHER = (
    ("head_dim", "qk_norm", "positions", "before"),
    ("ratio", "feedforward", "before"),
    ("pixel_shuffle", "matrices"),
)
_FITTING = ("head_dim", "pixel_shuffle")  # they must divide the width or the grid

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


def members(space: ArchitectureSpace) -> list[Architecture]:
    """Architectures that together have every layer of the space, at every width and number of meta tokens."""
    architectures, choices = [], space.choices
    for width in choices.widths:
        layers = [
            normalized(layer, norm)
            for name in choices.operators
            for layer in choices.at(name, width)
            for norm in choices.norms
        ]
        for start in range(0, len(layers), MAX_DEPTH):
            some = tuple(layers[start : start + MAX_DEPTH])
            architectures += [
                Architecture(
                    width=width,
                    vocabulary=space.vocabulary,
                    layers=some,
                    meta_tokens=meta_tokens,
                    normalized_head=space.settings.normalized_head,
                )
                for meta_tokens in choices.meta_tokens
            ]
    return architectures


def seeing_members(space: VisionSpace) -> list[VisionLanguage]:
    """Models that together have every part of the space: of towers, of projectors, and of decoders.

    Decoders are there behind every number of image tokens, which they read as part of the prompt.
    """
    decoders = members(space.language)
    # One layer is enough where only the width of the decoder matters.
    narrow = {each.width: each.model_copy(update={"layers": each.layers[:1]}) for each in decoders}
    # Blocks of either normalization: in deepest towers, none or all have LayerNorm before.
    before = space.choices["before"]
    ends = {"depth": (max(space.choices["depth"]),), "before": {min(before), max(before)}}
    choices = {**space.choices, **ends}
    found = [
        member
        for together in _TOGETHER
        for chosen in _combinations({name: choices[name] for name in (*_OF_ALL, *together)})
        for decoder in narrow.values()
        if (member := _first_with(chosen, space, choices, decoder)) is not None
    ]
    of_each_count = {member.image_tokens: member for member in found}
    behind = [
        member.model_copy(update={"language": decoder})
        for member in of_each_count.values()
        for decoder in decoders
    ]
    return [*found, *behind]


def _first_with(
    chosen: Genes, space: VisionSpace, choices: Mapping[str, Iterable[Any]], decoder: Architecture
) -> VisionLanguage | None:
    """A member with these genes; of genes that decide whether others fit, any value that fits."""
    rest: dict[str, Iterable[Any]] = {
        name: [*values][:1] for name, values in choices.items() if name not in chosen
    }
    rest |= {name: choices[name] for name in _FITTING if name in rest}
    built = (space.build({**chosen, **genes}, decoder) for genes in _combinations(rest))
    return next((member for member in built if member is not None), None)


def _combinations(choices: Mapping[str, Iterable[Any]]) -> Iterator[Genes]:
    return (dict(zip(choices, values, strict=True)) for values in product(*choices.values()))


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
    table: LatencyTable, objectives: Sequence[Objective], profile: ProfileSettings, space: ArchitectureSpace
) -> Known[Architecture]:
    """Of the objectives that the table predicts, by number, the cost (`Objective.cost`) of an architecture.

    It is empty where the table does not cover the space.
    """
    points = predicted_points(objectives, profile)
    if table.missing(members(space), tuple(points.values())):
        return {}

    def cost_of(objective: Objective, point: Point) -> Callable[[Architecture], float]:
        metric = objective.metric
        return lambda architecture: objective.cost({metric: _predicted(table, metric, point, architecture)})

    return {
        number: cost_of(objective, points[objective])
        for number, objective in enumerate(objectives)
        if objective in points
    }


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
    space: ArchitectureSpace | VisionSpace,
    *,
    device: str,
) -> Check:
    """The gate of the latency table.

    points: of the constraints, as `predicted_points` gives them.
    device: for the command in an error.

    Raises ConfigError where the table does not cover the space or was not validated on it.
    """
    everything: Sequence[Model]
    if isinstance(space, VisionSpace):
        everything, digest = seeing_members(space), digest_of(space.language.settings, space.settings)
    else:
        everything, digest = members(space), digest_of(space.settings)
    lacking = table.missing(everything, tuple(points.values()))
    if lacking:
        raise ConfigError(
            f"gates.table: {table.path} lacks {len(lacking)} entries of this space; expected all: "
            f"`frontrunner table build CONFIG --device {device}` measures them"
        )
    margins = {each: _margin(table, each, point, digest) for each, point in points.items()}

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
