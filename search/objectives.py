"""Names of metrics, and what a run wants of them: objectives to minimize or maximize, constraints to keep.

A metric of a profile that depends on the batch size is written with it: `decode_ms@b1`, `decode_tokens_per_s@b8`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from operators.errors import ConfigError
from profiler.measure import METRICS as PROFILE_METRICS
from profiler.measure import Metric

PROXY_METRICS: dict[str, Metric] = {
    "loss": Metric("nats/token", maximize=False, per_batch=False, description="validation loss after the proxy training"),
    "perplexity": Metric("", maximize=False, per_batch=False, description="exponential of the loss"),
    "bits_per_byte": Metric("bits/byte", maximize=False, per_batch=False, description="the loss for each byte of text"),
}
METRICS: dict[str, Metric] = {**PROFILE_METRICS, **PROXY_METRICS}
"""Every metric, by its name without the batch size."""

_CONSTRAINT = re.compile(r"^\s*(?P<metric>[a-z_]+(?:@b\d+)?)\s*(?P<relation><=|>=|<|>)\s*(?P<bound>[-+0-9.eE_]+)\s*$")


def metric_of(name: str, batch_sizes: Sequence[int]) -> Metric:
    """The metric that `name` means in a run that profiles `batch_sizes`. Raises ConfigError with what exists."""
    base, _, suffix = name.partition("@b")
    metric = METRICS.get(base)
    if metric is None:
        raise ConfigError(f"unknown metric {name!r}: expected one of {', '.join(names(batch_sizes))}")
    if metric.per_batch and suffix not in {str(size) for size in batch_sizes}:
        known = ", ".join(f"{base}@b{size}" for size in batch_sizes)
        raise ConfigError(f"metric {name!r} is measured at the profile's batch sizes: expected one of {known}")
    if not metric.per_batch and "@" in name:
        raise ConfigError(f"metric {name!r} does not depend on the batch size: expected {base}")
    return metric


def names(batch_sizes: Sequence[int]) -> tuple[str, ...]:
    """Every metric that a run with these batch sizes provides."""
    known: list[str] = []
    for base, metric in METRICS.items():
        known += [f"{base}@b{size}" for size in batch_sizes] if metric.per_batch else [base]
    return tuple(known)


@dataclass(frozen=True)
class Objective:
    """A metric to make as good as possible."""

    metric: str
    maximize: bool

    def cost(self, metrics: Mapping[str, float]) -> float:
        """The metric's value, or its negative where more is better: less is always better."""
        return -metrics[self.metric] if self.maximize else metrics[self.metric]


def parse_objective(name: str, batch_sizes: Sequence[int]) -> Objective:
    return Objective(name, maximize=metric_of(name, batch_sizes).maximize)


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric, as in `params <= 3e6`."""

    metric: str
    relation: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound:g}"

    def broken_by(self, metrics: Mapping[str, float]) -> str | None:
        """The reason why `metrics` break the constraint; None if they keep it or do not hold its metric (yet)."""
        value = metrics.get(self.metric)
        if value is None:
            return None
        kept = {"<=": value <= self.bound, "<": value < self.bound, ">=": value >= self.bound, ">": value > self.bound}
        return None if kept[self.relation] else f"{self.metric} is {value:g}, expected {self.relation} {self.bound:g}"


def parse_constraint(text: str, batch_sizes: Sequence[int]) -> Constraint:
    """Reads `metric <= number` (also <, >=, >). Raises ConfigError."""
    match = _CONSTRAINT.match(text)
    try:
        bound = float(match["bound"]) if match else float("nan")
    except ValueError:
        bound = float("nan")
    if match is None or not isfinite(bound):
        raise ConfigError(f"constraint {text!r}: expected a metric, <=, <, >= or >, and a number, as in 'params <= 3e6'")
    metric_of(match["metric"], batch_sizes)
    return Constraint(match["metric"], match["relation"], bound)


def first_broken(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> str | None:
    """The reason of the first constraint that `metrics` break, or None."""
    return next((reason for constraint in constraints if (reason := constraint.broken_by(metrics))), None)
