"""What a search asks the device's latency table: who is predicted to break a constraint on latency and need not be measured, and what
objectives on latency will be.

The gate turns away who breaks the constraint by more than what `frontrunner table validate` found predictions to be off for 95 of 100
models held out of the same space, and nobody whom the table does not know.
"""

import hashlib
import re
from collections.abc import Callable, Iterator

from operators.architecture import MAX_DEPTH, Architecture
from operators.base.errors import ConfigError, DeviceError, TableError
from operators.base.threads import torch_threads
from profiler.device.device import open_device
from profiler.profile import ProfileSettings, key
from profiler.table.latency_table import LatencyTable, default_path
from profiler.table.parts import Point
from search.config.choices import normalized
from search.config.evaluation import TABLE_METRICS
from search.config.run import RunConfig
from search.config.space import SpaceSettings
from search.gates.screen import Check
from search.objectives import Constraint, Objective
from search.searchers.guided import Known
from search.spaces.free import ArchitectureSpace

LEAST_MODELS = 20  # held out, before their 95th percentile says anything


def constrained_points(config: RunConfig) -> dict[Constraint, Point]:
    """The constraints on what the table predicts, each with where it applies."""
    known = dict(_predicted(config.profile))
    return {
        constraint: known[constraint.metric]
        for constraint in config.parsed_constraints()
        if constraint.metric in known
    }


def _predicted(profile: ProfileSettings) -> Iterator[tuple[str, Point]]:
    for name, phase in TABLE_METRICS.items():
        for context in profile.contexts:
            for batch in profile.batch_sizes:
                yield (
                    key(name, batch=batch, context=None if context == profile.contexts[0] else context),
                    Point(phase, batch, context),
                )


def digest_of(settings: SpaceSettings) -> str:
    """What tells one search space from another."""
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]


def members(space: ArchitectureSpace) -> list[Architecture]:
    """Architectures that together have every layer, at every width, with every number of meta tokens that the space allows."""
    found, choices = [], space.choices
    for width in choices.widths:
        layers = [
            normalized(layer, norm)
            for name in choices.operators
            for layer in choices.at(name, width)
            for norm in choices.norms
        ]
        for start in range(0, len(layers), MAX_DEPTH):
            some = tuple(layers[start : start + MAX_DEPTH])
            found += [
                Architecture(
                    width=width,
                    vocabulary=space.vocabulary,
                    layers=some,
                    meta_tokens=meta_tokens,
                    normalized_head=space.settings.normalized_head,
                )
                for meta_tokens in choices.meta_tokens
            ]
    return found


def _table(config: RunConfig) -> LatencyTable:
    """That of the run's device. Raises DeviceError where this machine has no such device, TableError where the table is damaged."""
    device = open_device(config.device)
    if (
        device.torch_device.type == "cuda"
        and config.device_kind
        and not is_kind(device.name, config.device_kind[0])
    ):
        raise DeviceError(
            f"device {config.device}: expected one of device_kind {config.device_kind[0]}, got {device.name}"
        )
    with torch_threads(config.profile.threads):
        return LatencyTable.open(default_path(device), device)


def is_kind(name: str, kind: str) -> bool:
    """Whether a device with that name of its driver's is of a kind in Ray's words: by what has a digit in them, as `A100` of `A100-80G`."""
    words = set(re.split(r"[^A-Z0-9]+", name.upper()))
    return any(part in words for part in re.split(r"[^A-Z0-9]+", kind.upper()) if re.search(r"\d", part))


def known_costs(config: RunConfig, space: ArchitectureSpace) -> Known[Architecture]:
    """Of the objectives that the table of the run's device predicts, the cost (see `Objective.cost`) of an architecture of the space.

    None where the table does not cover the space, or the device is not here. Raises TableError where the table is damaged.
    """
    points = dict(_predicted(config.profile))
    asked = {
        number: objective
        for number, objective in enumerate(config.parsed_objectives())
        if objective.metric in points
    }
    try:
        table = _table(config) if asked else None
    except DeviceError:
        return {}
    if table is None or table.missing(
        members(space), tuple(points[objective.metric] for objective in asked.values())
    ):
        return {}

    def cost_of(objective: Objective, point: Point) -> Callable[[Architecture], float]:
        metric = objective.metric
        return lambda architecture: objective.cost(
            {metric: _value(metric, point, table.latency(architecture, point).ms)}
        )

    return {number: cost_of(objective, points[objective.metric]) for number, objective in asked.items()}


def in_time(config: RunConfig) -> Callable[[Architecture], bool]:
    """Whether an architecture is predicted to meet every constraint on latency, where the table is as `table_check` wants it.

    By the prediction itself, without the margin that the gate leaves: it chooses a width, it turns nobody away.
    """
    table, asked = _table(config), constrained_points(config)

    def check(architecture: Architecture) -> bool:
        try:
            predicted = {
                item: _value(item.metric, point, table.latency(architecture, point).ms)
                for item, point in asked.items()
            }
        except TableError:
            return False
        return not any(item.broken_by({item.metric: value}) for item, value in predicted.items())

    return check


def table_check(config: RunConfig, space: ArchitectureSpace) -> Check:
    """What the table of the run's device has against an architecture.

    Raises ConfigError where this machine has no such device, or the table does not cover the space or was not validated on it, and
    TableError where it is damaged.
    """
    asked = constrained_points(config)
    try:
        table = _table(config)
    except DeviceError as error:
        raise ConfigError(
            f"gates.table: the table is read on the machine that drives the search; {error}"
        ) from None
    lacking = table.missing(members(space), tuple(asked.values()))
    if lacking:
        raise ConfigError(
            f"gates.table: {table.path} lacks {len(lacking)} entries of this space; expected all: "
            f"`frontrunner table build CONFIG --device {config.device}` measures them"
        )
    margins: dict[Constraint, float] = {}
    for constraint, point in asked.items():
        found = table.validation(digest_of(config.space), point)
        if found is None or found.models < LEAST_MODELS:
            raise ConfigError(
                f"gates.table: {table.path} was validated on {found.models if found else 0} models of this space where constraint "
                f"'{constraint}' applies; expected at least {LEAST_MODELS}: `frontrunner table validate CONFIG` measures them"
            )
        margins[constraint] = found.p95

    def check(architecture: Architecture) -> str | None:
        for constraint, point in asked.items():
            try:
                predicted_ms = table.latency(architecture, point).ms
            except TableError:
                continue
            margin = margins[constraint]
            likely = [
                _value(constraint.metric, point, predicted_ms / (1 + off))
                for off in (-min(margin, 0.99), margin)
            ]
            if all(constraint.broken_by({constraint.metric: value}) for value in likely):
                value = _value(constraint.metric, point, predicted_ms)
                expected = f"expected {constraint.relation} {constraint.bound:g}"
                return f"{constraint.metric} is predicted as {value:.4g} and at most {margin:.1%} off, {expected}"
        return None

    return check


def _value(metric: str, point: Point, ms: float) -> float:
    return point.batch / ms * 1e3 if metric.startswith("decode_tokens_per_s") else ms
