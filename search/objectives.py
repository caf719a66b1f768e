"""Names of metrics, and what a run wants of them: objectives to optimize and constraints to keep.

A metric of a profile that depends on the batch size names it: `decode_ms@b1`. At any but the first of the
profile's contexts it names the context too: `decode_ms@b1.c32768`, `throughput_tokens_per_s@c32768`. A run
that measures on several kinds of device has one value of each measured metric for each kind:
`decode_ms@b1/H100` and `decode_ms@b1/A100`. A metric that is computed or trained, as `params` or `loss`, has
one value.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from itertools import product
from math import isfinite, isnan, nan

from operators import Architecture
from operators.base import plugins
from operators.base.errors import ConfigError
from profiler.metrics import METRICS as PROFILE_METRICS
from profiler.metrics import Metric, MetricName
from profiler.profile import ProfileSettings
from proxy_train.task_settings import TaskSettings

PROXY_METRICS: dict[str, Metric] = {
    "loss": Metric("nats/token", False, "architecture", "validation loss after the proxy training"),
    "perplexity": Metric("", False, "architecture", "exponential of the loss"),
    "bits_per_byte": Metric("bits/byte", False, "architecture", "the loss for each byte of text"),
}
TASK_METRICS: dict[str, Metric] = {
    "recall_accuracy": Metric(
        "", True, "architecture", "share of held-out answers of in-context recall that are right"
    ),
    "noisy_recall_accuracy": Metric("", True, "architecture", "the same with noise between the pairs"),
    "copy_accuracy": Metric(
        "", True, "architecture", "share of held-out tokens of selective copying that are right"
    ),
}
VISION_METRICS: dict[str, Metric] = {
    "answer_loss": Metric(
        "nats/token", False, "architecture", "loss of held-out answers to questions on images", "images"
    ),
    "answer_accuracy": Metric(
        "", True, "architecture", "share of held-out answers that the model writes exactly", "images"
    ),
    "text_loss": Metric(
        "nats/token", False, "architecture", "validation loss of text after all stages", "images"
    ),
}
METRICS: dict[str, Metric] = {**PROFILE_METRICS, **PROXY_METRICS, **TASK_METRICS, **VISION_METRICS}
"""Every metric of Frontrunner's own, by its name without batch size and context."""


@dataclass(frozen=True)
class CandidateMetric:
    """A metric that another package adds by an entry point of the group `frontrunner.objectives`.

    compute: (architecture, metrics by name) -> the value, finite. It is called after the training, with
        everything that was measured and trained. Metrics of other packages are not among the metrics it gets.
    unit: as in `ms`; empty for none.
    maximize: whether more is better.
    description: what the metric is, for people.
    """

    compute: Callable[[Architecture, Mapping[str, float]], float]
    unit: str = ""
    maximize: bool = False
    description: str = ""


def of_others() -> Mapping[str, EntryPoint]:
    """Returns the metrics of other packages, by name. Raises ConfigError."""
    return plugins.found("frontrunner.objectives", tuple(METRICS))


def metric_named(name: str) -> Metric | None:
    """Returns the metric of that name without batch size and context, of Frontrunner or another package."""
    if name in of_others():
        other = plugins.load(of_others()[name], CandidateMetric)
        return Metric(other.unit, other.maximize, "architecture", other.description)
    return METRICS.get(name)


def needs_training(name: str) -> bool:
    """Whether the metric is known only after a training, so that another seed gives another value."""
    return base_of(name) in {**PROXY_METRICS, **TASK_METRICS, **VISION_METRICS, **of_others()}


def computed_by_others(
    wanted: Iterable[str], architecture: Architecture, metrics: Mapping[str, float]
) -> dict[str, float]:
    """Computes those of the wanted metrics that other packages define.

    Raises ValueError for a value that is not a finite number, and whatever the packages' code raises.
    """
    figures: dict[str, float] = {}
    for name in sorted(set(wanted) & set(of_others())):
        figures[name] = float(plugins.load(of_others()[name], CandidateMetric).compute(architecture, metrics))
        if not isfinite(figures[name]):
            raise ValueError(f"metric {name}: expected a finite number, got {figures[name]}")
    return figures


COMPUTED = ("params", "param_bytes", "state_bytes", "kv_bytes", "recurrent_bytes")
"""Metrics of a profile that are arithmetic: every kind of device has the same value."""

_NAME = r"[a-z_][a-z0-9_]*(?:@[a-z0-9.]+)?(?:/[A-Za-z0-9._-]+)?"
_CONSTRAINT = re.compile(rf"^\s*(?P<metric>{_NAME})\s*(?P<relation><=|>=|<|>)\s*(?P<bound>[-+0-9.eE_]+)\s*$")


def base_of(name: str) -> str:
    """Returns the metric's name without batch size, context and kind of device: the key of METRICS."""
    return MetricName.parse(name).metric


def on_kind(name: str, kind: str) -> str:
    """Returns the name that a metric has on this kind of device.

    The name stays as it is where the kind does not matter or is empty.
    """
    if not kind:
        return name
    parsed = MetricName.parse(name)
    differs = parsed.metric in PROFILE_METRICS and parsed.metric not in COMPUTED
    return str(replace(parsed, kind=kind)) if differs else name


@dataclass(frozen=True)
class Objective:
    """A metric to make as good as possible."""

    metric: str
    maximize: bool

    def cost(self, metrics: Mapping[str, float]) -> float:
        """Returns the metric's value, or its negative where more is better: less cost is always better."""
        return -metrics[self.metric] if self.maximize else metrics[self.metric]


def by_kind(objectives: Sequence[Objective], kinds: Sequence[str]) -> dict[str, tuple[Objective, ...]]:
    """Returns a run's objectives for each kind of device, with every measured metric taken from that kind.

    A run without several kinds has its own objectives under an empty name.
    """
    if len(kinds) < 2:
        return {"": tuple(objectives)}
    plain = [replace(each, metric=str(MetricName.parse(each.metric).plain)) for each in objectives]
    return {
        kind: tuple(dict.fromkeys(replace(each, metric=on_kind(each.metric, kind)) for each in plain))
        for kind in kinds
    }


_RELATIONS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric, as in `params <= 3e6`."""

    metric: str
    relation: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {_exact(self.bound)}"

    def broken_by(self, metrics: Mapping[str, float]) -> str | None:
        """Returns why `metrics` break the constraint; None if they keep it or lack its metric (yet)."""
        value = metrics.get(self.metric)
        if value is None:
            return None
        return (
            None
            if _RELATIONS[self.relation](value, self.bound)
            else f"{self.metric} is {_exact(value)}, expected {self.relation} {_exact(self.bound)}"
        )


@dataclass(frozen=True)
class RunMetrics:
    """The metrics that a run provides.

    profile: what the run profiles with.
    tasks: the tasks that the run trains on.
    kinds: the kinds of device, if the run has several.
    """

    profile: ProfileSettings
    tasks: TaskSettings = field(default_factory=TaskSettings)
    kinds: Sequence[str] = ()

    def names(self) -> tuple[str, ...]:
        """Returns the names of all of them."""
        provided = (
            base
            for base in (*METRICS, *of_others())
            if (metric := metric_named(base)) is not None
            and self.profile.measures(metric)
            and not (self.profile.images and (base in PROXY_METRICS or base in of_others()))
            and (base not in TASK_METRICS or self._trained(base))
        )
        return tuple(
            name for base in provided for key in self.profile.keys(base) for name in self._on_each(key)
        )

    def named(self, name: str) -> Metric:
        """Returns the metric that `name` means in the run. Raises ConfigError with the names that exist."""
        parsed = MetricName.parse(name)
        base, plain = parsed.metric, str(parsed.plain)
        metric = metric_named(base)
        if metric is None:
            raise ConfigError(f"unknown metric {name!r}: expected one of {', '.join(self.names())}")
        if not self.profile.measures(metric):
            raise ConfigError(
                f"metric {name!r} is measured only where the profile asks for it: set profile.{metric.needs}"
            )
        if self.profile.images and (base in PROXY_METRICS or base in of_others()):
            raise ConfigError(
                f"metric {name!r} is for language models alone: expected one of {', '.join(VISION_METRICS)} "
                "where candidates see"
            )
        if base in TASK_METRICS and not self._trained(base):
            raise ConfigError(
                f"metric {name!r} is measured only where its task is trained: "
                f"add {base.removesuffix('_accuracy')} to tasks.names"
            )
        known = self.profile.keys(base)
        if plain not in known and metric.per == "architecture":
            raise ConfigError(f"metric {name!r} does not depend on the batch size: expected {base}")
        if plain not in known:
            what = "batch sizes and contexts" if metric.per == "batch" else "contexts"
            raise ConfigError(
                f"metric {name!r} is measured at the profile's {what}: expected one of {', '.join(known)}"
            )
        offered = self._on_each(plain)
        if name not in offered:
            why = (
                "is measured on each device_kind"
                if len(offered) > 1
                else "does not depend on the kind of device in this run"
            )
            raise ConfigError(
                f"metric {name!r} {why}: expected {'one of ' if len(offered) > 1 else ''}{', '.join(offered)}"
            )
        return metric

    def objective(self, name: str) -> Objective:
        """Returns the objective to improve the metric of that name. Raises ConfigError."""
        return Objective(name, maximize=self.named(name).maximize)

    def constraint(self, text: str) -> Constraint:
        """Reads `metric <= number` (also <, >=, >). Raises ConfigError."""
        match = _CONSTRAINT.match(text)
        try:
            bound = float(match["bound"]) if match else float("nan")
        except ValueError:
            bound = float("nan")
        if match is None or not isfinite(bound):
            raise ConfigError(
                f"constraint {text!r}: expected a metric, <=, <, >= or >, and a number, as in 'params <= 3e6'"
            )
        self.named(match["metric"])
        return Constraint(match["metric"], match["relation"], bound)

    def _on_each(self, name: str) -> tuple[str, ...]:
        kinds = self.kinds
        return tuple(dict.fromkeys(on_kind(name, kind) for kind in kinds)) if len(kinds) > 1 else (name,)

    def _trained(self, base: str) -> bool:
        return base.removesuffix("_accuracy") in self.tasks.names


def require_agreement(constraints: Sequence[Constraint]) -> None:
    """Raises ConfigError where two constraints on the same metric contradict each other."""
    least = [constraint for constraint in constraints if constraint.relation in (">=", ">")]
    most = [constraint for constraint in constraints if constraint.relation in ("<=", "<")]
    for low, high in product(least, most):
        meet = low.bound < high.bound or (
            low.bound == high.bound and (low.relation, high.relation) == (">=", "<=")
        )
        if low.metric == high.metric and not meet:
            raise ConfigError(
                f"constraints '{low}' and '{high}' contradict each other: no {low.metric} meets both"
            )


def qualifies(metrics: Mapping[str, float], constraints: Sequence[Constraint]) -> bool:
    """Whether `metrics` keep all constraints; a metric that is missing or not a number keeps none."""
    return all(
        not isnan(metrics.get(constraint.metric, nan)) and constraint.broken_by(metrics) is None
        for constraint in constraints
    )


def _exact(value: float) -> str:
    """Formats a value exactly, in as few digits as that takes: it must differ from a bound it breaks."""
    short = f"{value:g}"
    return (
        short
        if float(short) == value
        else f"{value:.17g}"
        if float(f"{value:.15g}") != value
        else f"{value:.15g}"
    )


def first_broken(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> str | None:
    """Returns the reason of the first constraint that `metrics` break, or None."""
    return next((reason for constraint in constraints if (reason := constraint.broken_by(metrics))), None)
