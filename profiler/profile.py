"""What is measured of an architecture, by name: the settings, the figures and their errors."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from operators.value import Value
from profiler.conditions import Conditions
from profiler.timing import SamplingSettings, Timing

LEAST_ENERGY_SECONDS = 5.0  # the counter moves every 20 to 100 ms: less than 2 % of this
# How far the median of one process can be repeated by another: the benchmark `repeat` measures it.
REPEATABILITY = {"cuda": 0.005, "cpu": 0.05}


class Metric(NamedTuple):
    """A figure of a profile. maximize: more is better. needs: the setting of a profile without which it is not measured.

    per: what its key carries: nothing, the batch size and the context, or the context alone (see `key`).
    """

    unit: str
    maximize: bool
    per: Literal["architecture", "batch", "context"]
    description: str
    needs: str = ""


METRICS: dict[str, Metric] = {
    "params": Metric(
        "parameters", False, "architecture", "parameters, embeddings included, a tied head once"
    ),
    "param_bytes": Metric("bytes", False, "architecture", "bytes of the parameters"),
    "prefill_ms": Metric(
        "ms", False, "batch", "time to first token: to read the context and choose the next one, median"
    ),
    "decode_ms": Metric(
        "ms", False, "batch", "time per output token: one decode step of the whole batch, median"
    ),
    "decode_tokens_per_s": Metric("tokens/s", True, "batch", "tokens decoded by the whole batch in a second"),
    "anchor_ratio": Metric("", False, "batch", "decode_ms over that of the anchor model timed around it"),
    "peak_memory_bytes": Metric("bytes", False, "batch", "weights, state and temporaries at their highest"),
    "state_bytes": Metric("bytes", False, "batch", "decode state: key-value caches and recurrent state"),
    "kv_bytes": Metric("bytes", False, "batch", "the part of the state that grows with the context"),
    "recurrent_bytes": Metric("bytes", False, "batch", "the part of the state that does not"),
    "achieved_bytes_per_s": Metric(
        "bytes/s", True, "batch", "bytes that a decode step has to move, over its time"
    ),
    "bandwidth_fraction": Metric(
        "", True, "batch", "of a copy's bytes per second; above 1 where weights stay in a cache"
    ),
    "energy_j_per_token": Metric(
        "J/token", False, "batch", "energy of the device for each decoded token", "energy_seconds"
    ),
    "power_w": Metric("W", False, "batch", "mean power of the device while it decodes", "energy_seconds"),
    "largest_batch": Metric(
        "rows",
        True,
        "context",
        "most rows that can be decoded at once in the device's memory",
        "largest_batch",
    ),
    "throughput_tokens_per_s": Metric(
        "tokens/s", True, "context", "tokens decoded in a second at the largest batch", "largest_batch"
    ),
}


def key(name: str, *, batch: int | None = None, context: int | None = None) -> str:
    """`decode_ms@b1`, `decode_ms@b1.c32768`, `largest_batch`, `largest_batch@c32768`; without `context` it is the profile's first."""
    parts = [f"{letter}{value}" for letter, value in (("b", batch), ("c", context)) if value is not None]
    return f"{name}@{'.'.join(parts)}" if parts else name


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


class ProfileSettings(SamplingSettings):
    """The `profile:` section of a run.

    batch_sizes: rows decoded at once, one set of figures each. contexts: tokens a row that prefill reads and that decode sees, one set of
    figures each; one number is a list of one. threads: of PyTorch on the CPU. energy_seconds: how long to decode, at every batch size
    and context, for its energy; 0 does not measure it. largest_batch: find the largest batch that fits at each context, and its throughput,
    for which batch_sizes may be empty. The rest: see SamplingSettings.
    """

    batch_sizes: tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...] = (1, 8)
    contexts: Annotated[
        tuple[Annotated[int, Field(ge=1, le=100_000_000)], ...],
        Field(min_length=1),
        BeforeValidator(_several),
    ] = (256,)
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    energy_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    largest_batch: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("batch_sizes", "contexts"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"expected {name} without repetition, got {list(values)}")
        if not (self.batch_sizes or self.largest_batch):
            raise ValueError("batch_sizes: expected at least one, or largest_batch")
        if 0 < self.energy_seconds < LEAST_ENERGY_SECONDS:
            raise ValueError(
                f"energy_seconds: expected 0 (not measured) or at least {LEAST_ENERGY_SECONDS:g}, got {self.energy_seconds:g}"
            )
        return self

    def measures(self, metric: Metric) -> bool:
        return not metric.needs or bool(getattr(self, metric.needs))

    def keys(self, name: str) -> tuple[str, ...]:
        """Every key that the metric of this name has in a profile with these settings."""
        contexts = (None, *self.contexts[1:])
        per = METRICS[name].per if name in METRICS else "architecture"
        if per == "architecture":
            return (name,)
        if per == "context":
            return tuple(key(name, context=context) for context in contexts)
        return tuple(
            key(name, batch=batch, context=context) for context in contexts for batch in self.batch_sizes
        )


class Energy(Value):
    """What a device used in `seconds` in which it decoded `tokens`."""

    energy_j: float
    seconds: float
    tokens: int

    @property
    def power_w(self) -> float:
        return self.energy_j / self.seconds

    @property
    def j_per_token(self) -> float:
        return self.energy_j / self.tokens


class PointProfile(Value):
    """Figures at one batch size and context. peak_memory_bytes: weights + state + the most that a prefill and a decode step had allocated.

    decode_bytes: what a decode step has to move, by arithmetic.
    """

    batch: int
    context: int
    prefill: Timing
    decode: Timing
    peak_memory_bytes: int
    kv_bytes: int
    recurrent_bytes: int
    decode_bytes: int
    energy: Energy | None = None

    @property
    def device_s(self) -> float:
        return self.prefill.device_s + self.decode.device_s + (self.energy.seconds if self.energy else 0.0)

    @property
    def decode_tokens_per_s(self) -> float:
        return self.batch / self.decode.median_ms * 1e3

    @property
    def state_bytes(self) -> int:
        return self.kv_bytes + self.recurrent_bytes

    @property
    def achieved_bytes_per_s(self) -> float:
        return self.decode_bytes / self.decode.median_ms * 1e3


class LargestBatch(Value):
    """Decoding at the largest batch that fits, to within 2 %."""

    context: int
    batch: int
    decode: Timing

    @property
    def device_s(self) -> float:
        return self.decode.device_s

    @property
    def tokens_per_s(self) -> float:
        return self.batch / self.decode.median_ms * 1e3


class Profile(Value):
    """Measured costs of one architecture on one device.

    points: by context, then by batch size. largest: by context. absent: what was asked for and could not be measured, with the reason.
    copy_bytes_per_s: of a copy within the device's memory; datasheet_bytes_per_s: None where unknown.
    conditions: of the points, largest_conditions: of `largest`. backends: which one each operator got.
    """

    device: str
    device_name: str
    dtype: str
    threads: int
    contexts: tuple[int, ...]
    params: int
    param_bytes: int
    points: tuple[PointProfile, ...]
    largest: tuple[LargestBatch, ...] = ()
    absent: Mapping[str, str] = {}
    copy_bytes_per_s: float
    datasheet_bytes_per_s: float | None
    conditions: Conditions
    largest_conditions: Conditions | None = None
    backends: Mapping[str, str]
    versions: Mapping[str, str]
    seed: int

    @property
    def lock_s(self) -> float:
        """Seconds for which the device was held exclusively to time this."""
        return self.conditions.lock_s + (self.largest_conditions.lock_s if self.largest_conditions else 0.0)

    @property
    def tainted(self) -> tuple[str, ...]:
        """Why the figures should not be trusted; empty where they can be."""
        return (
            *self.conditions.tainted,
            *(self.largest_conditions.tainted if self.largest_conditions else ()),
        )

    def metrics(self) -> dict[str, float]:
        """The figures by key, see METRICS and `key`."""
        figures: dict[str, float] = {"params": self.params, "param_bytes": self.param_bytes}
        for point in self.points:
            values = {
                "prefill_ms": point.prefill.median_ms,
                "decode_ms": point.decode.median_ms,
                "decode_tokens_per_s": point.decode_tokens_per_s,
                "anchor_ratio": point.decode.median_ms / self.conditions.anchor_ms,
                "peak_memory_bytes": point.peak_memory_bytes,
                "state_bytes": point.state_bytes,
                "kv_bytes": point.kv_bytes,
                "recurrent_bytes": point.recurrent_bytes,
                "achieved_bytes_per_s": point.achieved_bytes_per_s,
                "bandwidth_fraction": point.achieved_bytes_per_s / self.copy_bytes_per_s,
            }
            if point.energy is not None:
                values |= {"energy_j_per_token": point.energy.j_per_token, "power_w": point.energy.power_w}
            figures |= {
                key(name, batch=point.batch, context=self._further(point.context)): value
                for name, value in values.items()
            }
        for found in self.largest:
            context = self._further(found.context)
            figures[key("largest_batch", context=context)] = found.batch
            figures[key("throughput_tokens_per_s", context=context)] = found.tokens_per_s
        return figures

    def errors(self) -> dict[str, float]:
        """By key, how far each latency and throughput may be off, relative to it.

        Twice the standard error of the median, and at least how far processes of a device of this kind differ (REPEATABILITY).
        """
        found: dict[str, float] = {}
        for point in self.points:
            batch, context = point.batch, self._further(point.context)
            found[key("prefill_ms", batch=batch, context=context)] = self._error(point.prefill)
            for name in (
                "decode_ms",
                "decode_tokens_per_s",
                "anchor_ratio",
                "achieved_bytes_per_s",
                "bandwidth_fraction",
            ):
                found[key(name, batch=batch, context=context)] = self._error(point.decode)
        for largest in self.largest:
            found[key("throughput_tokens_per_s", context=self._further(largest.context))] = self._error(
                largest.decode
            )
        return found

    def _error(self, timing: Timing) -> float:
        return max(REPEATABILITY[self.device.partition(":")[0]], 2 * timing.relative_error)

    def _further(self, context: int) -> int | None:
        return None if context == self.contexts[0] else context
