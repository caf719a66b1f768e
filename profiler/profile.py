"""What is measured of an architecture: the settings, the figures by name, and the error of each."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from operators.base.value import Value
from profiler.device.names import LLAMA_CPP, computes_on, engine_of
from profiler.device.nvml import Reading
from profiler.energy import Energy
from profiler.metrics import METRICS, Metric, key
from profiler.timing import BRIEF, SamplingSettings, Timing
from profiler.vision_point import PICTURE, Picture, VisionPoint


class Conditions(Value):
    """What held while something was measured.

    anchor_before, anchor_after: one step of the anchor model before and after it
    drift: the difference between both, over their mean
    max_drift: the drift above which the measurement is tainted
    before, after: readings of the device at those moments
    clock_reasons: the reasons in both readings why the clocks were not higher
    violations_ns: how far each counter of violations went on between the two readings (ns)
    foreign_pids: processes on the device that do not keep to its locks
    notes: what could not be read, and why
    remarks: what else is to be known of the figures
    attempts: how often it was measured; only the last attempt counts
    tainted: why the figures should not be trusted; empty where they can be
    lock_s: how long the device was held, all attempts together (s)
    busy_s: the part of lock_s that became samples (s)
    core_share: the part of the time between the anchors in which this thread had a core; None on a GPU, with
        several threads, and where it is not known
    sm_mhz_before, sm_mhz_after: the clock of the multiprocessors just before and just after, as one of them
        counted it (MHz); None on a CPU, and where it is not known
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
    sm_mhz_before: float | None = None
    sm_mhz_after: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def anchor_ms(self) -> float:
        """The mean of both timings of the anchor (ms)."""
        return (self.anchor_before.median_ms + self.anchor_after.median_ms) / 2


# The energy counter moves every 20 to 100 ms, which is at most 2 % of this time (s).
LEAST_ENERGY_SECONDS = 5.0
Quantization = Literal["F32", "F16", "BF16", "Q8_0"]
# What llama.cpp is used with most, and near float32 in its results.
QUANTIZATION: Quantization = "Q8_0"
# How far a figure of one process may be from the same figure of another process, relative to it. No error is
# reported below this.
# cuda: the benchmark `repeat` measures it.
# cpu: eight small models were measured over and over on two cores of a virtual machine, idle and beside
#     another program. Their thread times relative to the anchor's were usually off by 3 to 4 %, and one in
#     ten was off by 6 to 13 %. Twice the standard deviation is 9 %. It stays below MOST_ERROR: otherwise no
#     figure of a CPU could be clean.
REPEATABILITY = {"cuda": 0.005, "cpu": 0.09}
# A figure whose relative error is above this is not clean: it hardly shows which model is faster.
MOST_ERROR = 0.10


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

    Its further fields are those of SamplingSettings.

    batch_sizes: rows decoded at once; one set of figures each. It may be empty where largest_batch is set.
    contexts: tokens a row that prefill reads and that decode sees; one set of figures each. A single number
        is a list of one.
    threads: threads of PyTorch on the CPU
    energy_seconds: how long to decode for the energy, at every batch size and context (s); 0 does not measure
        it
    largest_batch: whether to find the largest batch that fits at each context, and its throughput
    attempts: how often to measure at most; a disturbed or unstable measurement is made again
    brief_prefill: whether a few passes time prefill, as where nothing depends on it; None is false, but in a
        search without an objective or constraint of prefill it is true
    quantization: number format of matrices on device llama.cpp; null is Q8_0 there. Other devices have none
    images: images in each prompt of a model that sees; their tokens come on top of the contexts
    picture: width and height of the decoded pictures that a model that sees begins with (pixels)
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
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    brief_prefill: bool | None = None
    quantization: Quantization | None = None
    images: Annotated[int, Field(ge=0, le=1024)] = 0
    picture: Picture = PICTURE

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("batch_sizes", "contexts"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"expected {name} without repetition, got {list(values)}")
        if not (self.batch_sizes or self.largest_batch):
            raise ValueError("batch_sizes: expected at least one, or largest_batch")
        if self.picture != PICTURE and not self.images:
            raise ValueError("picture: expected images of at least 1 beside it, got 0")
        if 0 < self.energy_seconds < LEAST_ENERGY_SECONDS:
            raise ValueError(
                "energy_seconds: expected 0 (not measured) or at least "
                f"{LEAST_ENERGY_SECONDS:g}, got {self.energy_seconds:g}"
            )
        return self

    def of_prefill(self) -> SamplingSettings:
        """How long to sample prefill."""
        return BRIEF if self.brief_prefill else self

    def measures(self, metric: Metric) -> bool:
        return all(getattr(self, name) for name in metric.needs.split(" and ") if name)

    def disagreement(self, device: str) -> str:
        """Why a device of that name cannot be measured with these settings; empty where it can."""
        if self.quantization is not None and engine_of(device) != LLAMA_CPP:
            return f"quantization: expected null, as only {LLAMA_CPP} has one, got {self.quantization}"
        if not self.batch_sizes and engine_of(device):
            return "batch_sizes: expected at least one for an engine, got none"
        return ""

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


class PointProfile(Value):
    """The figures at one batch size and context.

    batch: rows decoded at once
    context: tokens a row
    prefill: times of reading the context
    decode: times of one decode step of the whole batch
    peak_memory_bytes: weights and state, and the most that a prefill and a decode step had allocated
    kv_bytes: the part of the state that grows with the context
    recurrent_bytes: the part of the state that does not grow
    decode_bytes: what a decode step has to move, by arithmetic
    energy: the energy of decoding; None where it was not measured
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
    """Decoding at the largest batch that fits, found to within 2 %.

    context: tokens a row
    batch: rows decoded at once
    decode: times of one decode step of the whole batch
    """

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
    """How far a median may be off on a device of this kind, relative to the median.

    It is twice the standard error, and at least the difference between processes (REPEATABILITY). On a CPU
    another program disturbs for longer than a sample lasts, so the error is that of dependent samples.

    kind: of the device: `cuda` or `cpu`
    """
    standard = timing.lasting_error if kind == "cpu" else timing.relative_error
    return max(REPEATABILITY[kind], 2 * standard)


def instability(timing: Timing, kind: str) -> str:
    """Why a timing is not clean by its own samples; empty where it is clean."""
    error = error_of(timing, kind)
    return f"unstable: ± {error:.0%}, expected at most ± {MOST_ERROR:.0%}" if error > MOST_ERROR else ""


class Profile(Value):
    """The measured costs of one architecture on one device.

    device: name of the device, as for `open_device`
    device_name: name of its model
    dtype: number format of weights and state
    threads: threads of PyTorch on the CPU
    contexts: the contexts of the settings, in their order; keys leave out the first
    params, param_bytes: number and bytes of the parameters
    points: figures by context, then by batch size
    largest: figures at the largest batch, by context
    vision: figures of a model that sees, by context, then by batch size
    absent: what the settings asked for and could not be measured, with the reason
    copy_bytes_per_s: bandwidth of a copy within the device's memory (bytes/s)
    datasheet_bytes_per_s: bandwidth by the data sheet (bytes/s); None where unknown
    conditions: the conditions under which `points` were measured
    largest_conditions: the conditions under which `largest` was measured; None where it was not
    vision_conditions: the same of `vision`
    usual_anchor_ms: a step of the anchor at the pace in which times on a CPU are given (ms, see
        `profiler.measuring.pace`); None on a GPU, and in profiles that knew no pace
    backends: the backend that each operator got
    versions: the versions of the software
    seed: of weights and tokens
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
    vision: tuple[VisionPoint, ...] = ()
    absent: Mapping[str, str] = {}
    copy_bytes_per_s: float
    datasheet_bytes_per_s: float | None
    conditions: Conditions
    largest_conditions: Conditions | None = None
    vision_conditions: Conditions | None = None
    usual_anchor_ms: float | None = None
    backends: Mapping[str, str]
    versions: Mapping[str, str]
    seed: int

    @property
    def lock_s(self) -> float:
        """How long the device was held exclusively for these measurements (s)."""
        further = (self.largest_conditions, self.vision_conditions)
        return self.conditions.lock_s + sum(conditions.lock_s for conditions in further if conditions)

    @property
    def tainted(self) -> tuple[str, ...]:
        """Why some figures should not be trusted, each reason once; empty where all can be."""
        return tuple(dict.fromkeys(self.taints().values()))

    def taints(self) -> dict[str, str]:
        """Why a timed figure should not be trusted, by key.

        The reason is a tainted condition, or an error above MOST_ERROR.
        """
        found, kind = dict[str, str](), self._kind
        for names, timing, conditions in self._timed():
            held = "; ".join(conditions.tainted) if conditions else ""
            if reason := held or (instability(timing, kind) if timing else ""):
                found |= dict.fromkeys(names, reason)
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
        for seen in self.vision:
            context = self._further(seen.context)
            figures |= {key(n, batch=seen.batch, context=context): v for n, v in seen.metrics().items()}
            figures["image_tokens"] = seen.image_tokens
        return figures

    def key(self, name: str, *, batch: int | None = None, context: int) -> str:
        """The key of a figure of this profile, at a batch size and one of its contexts."""
        return key(name, batch=batch, context=self._further(context))

    def errors(self) -> dict[str, float]:
        """How far each latency and throughput may be off, by key and relative to it, see `error_of`."""
        found, kind = dict[str, float](), self._kind
        for names, timing, _ in self._timed():
            if timing:
                found |= dict.fromkeys(names, error_of(timing, kind))
        return found

    def _timed(self) -> Iterator[tuple[tuple[str, ...], Timing | None, Conditions | None]]:
        """The keys of figures that depend on one time, its samples where kept, and its conditions."""
        for point in self.points:
            at = point.batch, self._further(point.context)
            yield _keys(("prefill_ms",), *at), point.prefill, self.conditions
            yield _keys(_OF_DECODE, *at), point.decode, self.conditions
            if point.energy:
                yield _keys(_OF_ENERGY, *at), None, self.conditions
        for largest in self.largest:
            names = _keys(("throughput_tokens_per_s",), None, self._further(largest.context))
            yield names, largest.decode, self.largest_conditions
        for seen in self.vision:
            at = seen.batch, self._further(seen.context)
            for name, timing in {**seen.timed(), **({"ttft_energy_j": None} if seen.energy else {})}.items():
                yield _keys((name,), *at), timing, self.vision_conditions

    @property
    def _kind(self) -> str:
        return computes_on(self.device).partition(":")[0]

    def _further(self, context: int) -> int | None:
        return None if context == self.contexts[0] else context


@lru_cache(maxsize=4096)
def _keys(names: tuple[str, ...], batch: int | None, context: int | None) -> tuple[str, ...]:
    """The keys of several metrics. Kept, as every profile of a run has the same few."""
    return tuple(key(name, batch=batch, context=context) for name in names)
