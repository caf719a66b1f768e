"""What is measured of an architecture, by name: the settings, the figures and their errors."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from operators.base.value import Value
from profiler.device.nvml import Reading
from profiler.metrics import METRICS, Metric, key
from profiler.timing import SamplingSettings, Timing


class Conditions(Value):
    """What held while something was measured.

    anchor_before, anchor_after: one step of the anchor model around it. drift: their difference over their
        mean.
    before, after: the device at those moments. clock_reasons: of both. violations_ns: how far each counter
        went on between them.
    foreign_pids: processes on the device that do not keep to its locks. notes: what could not be told, and
        why.
    attempts: how often it was measured; only the last time counts. tainted: why it should not be trusted,
        empty where it can be.
    lock_s: seconds for which the device was held, all attempts together; busy_s: those of them that became
        samples.
    core_share: of the time between the anchors, what this thread had a core for; None on a GPU, with several
        threads, and where it is
    not known.
    """

    anchor_before: Timing
    anchor_after: Timing
    drift: float
    max_drift: float
    before: Reading
    after: Reading
    clock_reasons: tuple[str, ...]
    violations_ns: Mapping[str, int]
    foreign_pids: tuple[int, ...]
    notes: tuple[str, ...]
    attempts: int
    tainted: tuple[str, ...]
    lock_s: float
    busy_s: float
    core_share: float | None = None

    @property
    def anchor_ms(self) -> float:
        """Mean of both anchors."""
        return (self.anchor_before.median_ms + self.anchor_after.median_ms) / 2


LEAST_ENERGY_SECONDS = 5.0  # the counter moves every 20 to 100 ms: less than 2 % of this
REPEATABILITY = {"cuda": 0.005, "cpu": 0.09}
"""How far a figure of one process may be from that of another, relative to it; no figure's error is told to
be smaller.

cuda: the benchmark `repeat` measures it.
cpu: eight small models were measured over and over on two cores of a virtual machine, quiet and beside
    another program. Their
thread times relative to those of the anchor were off by 3 to 4 % as a rule and, in one of ten, by 6 to 13 %:
twice the standard
deviation is 9 %. It stays below MOST_ERROR, or no figure of a CPU could be clean.
"""
MOST_ERROR = 0.10
"""A figure that may be off by more than this, relative to it, is not clean: it says little of who is faster.
"""


_OF_DECODE = (
    "decode_ms",
    "decode_tokens_per_s",
    "anchor_ratio",
    "achieved_bytes_per_s",
    "bandwidth_fraction",
)
_OF_ENERGY = ("energy_j_per_token", "power_w")


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


class ProfileSettings(SamplingSettings):
    """The `profile:` section of a run.

    batch_sizes: rows decoded at once, one set of figures each. contexts: tokens a row that prefill reads and
        that decode sees, one set of
    figures each; one number is a list of one. threads: of PyTorch on the CPU. energy_seconds: how long to
    decode, at every batch size
    and context, for its energy; 0 does not measure it. largest_batch: find the largest batch that fits at
    each context, and its throughput,
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
                "energy_seconds: expected 0 (not measured) or at least "
                f"{LEAST_ENERGY_SECONDS:g}, got {self.energy_seconds:g}"
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
    """Figures at one batch size and context. peak_memory_bytes: weights + state + the most that a prefill and
    a decode step had allocated.

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


def error_of(timing: Timing, kind: str) -> float:
    """How far a median of a device of this kind (`cuda` or `cpu`) may be off, relative to it.

    Twice its standard error, and at least how far processes differ (REPEATABILITY). On a CPU other programs
    disturb for longer than a
    sample.
    """
    standard = timing.lasting_error if kind == "cpu" else timing.relative_error
    return max(REPEATABILITY[kind], 2 * standard)


def instability(timing: Timing, kind: str) -> str:
    """Why a timing is not clean by its own samples; empty where it is."""
    error = error_of(timing, kind)
    return f"unstable: ± {error:.0%}, expected at most ± {MOST_ERROR:.0%}" if error > MOST_ERROR else ""


class Profile(Value):
    """Measured costs of one architecture on one device.

    points: by context, then by batch size. largest: by context. absent: what was asked for and could not be
        measured, with the reason.
    usual_anchor_ms: of the pace that times on a CPU are told in (see `profiler.measuring.pace`); None on a
    GPU, and in profiles that knew none.
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
    usual_anchor_ms: float | None = None
    backends: Mapping[str, str]
    versions: Mapping[str, str]
    seed: int

    @property
    def lock_s(self) -> float:
        """Seconds for which the device was held exclusively to time this."""
        return self.conditions.lock_s + (self.largest_conditions.lock_s if self.largest_conditions else 0.0)

    @property
    def tainted(self) -> tuple[str, ...]:
        """Why some figures should not be trusted, each reason once; empty where all can be."""
        return tuple(dict.fromkeys(self.taints().values()))

    def taints(self) -> dict[str, str]:
        """By key, why a figure that was timed should not be trusted: the conditions, or an error above
        MOST_ERROR.
        """
        found = {}
        for name, timing, conditions in self._timed():
            held = "; ".join(conditions.tainted) if conditions else ""
            if reason := held or (instability(timing, self._kind) if timing else ""):
                found[name] = reason
        return found

    def metrics(self) -> dict[str, float]:
        """The figures by key, see METRICS and `key`."""
        figures: dict[str, float] = {"params": self.params, "param_bytes": self.param_bytes}
        for point in self.points:
            values = {
                "prefill_ms": point.prefill.median_ms,
                "decode_ms": point.decode.median_ms,
                "decode_tokens_per_s": point.decode_tokens_per_s,
                "anchor_ratio": point.decode.median_ms / (self.usual_anchor_ms or self.conditions.anchor_ms),
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

    def key(self, name: str, *, batch: int | None = None, context: int) -> str:
        """The key of a figure of this profile, at a batch size and one of its contexts."""
        return key(name, batch=batch, context=self._further(context))

    def errors(self) -> dict[str, float]:
        """By key, how far each latency and throughput may be off, relative to it, see `error_of`."""
        return {name: error_of(timing, self._kind) for name, timing, _ in self._timed() if timing}

    def _timed(self) -> Iterator[tuple[str, Timing | None, Conditions | None]]:
        """The key of each figure that depends on time, the samples it comes from, where they were kept, and
        under which conditions.
        """
        for point in self.points:
            names = {
                "prefill_ms": point.prefill,
                **dict.fromkeys(_OF_DECODE, point.decode),
                **(dict.fromkeys(_OF_ENERGY) if point.energy else {}),
            }
            for name, timing in names.items():
                found = key(name, batch=point.batch, context=self._further(point.context))
                yield found, timing, self.conditions
        for largest in self.largest:
            found = key("throughput_tokens_per_s", context=self._further(largest.context))
            yield found, largest.decode, self.largest_conditions

    @property
    def _kind(self) -> str:
        return self.device.partition(":")[0]

    def _further(self, context: int) -> int | None:
        return None if context == self.contexts[0] else context
