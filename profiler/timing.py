"""Repeated timings: when to stop, and what to report."""

import gc
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from math import inf, sqrt
from statistics import median
from time import perf_counter
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from operators.base.value import Value

# So few that a part outlasts the time slices of a busy machine, and enough for an order statistic on either
# side.
_PARTS = 8


class SamplingSettings(Value):
    """How long to sample.

    warmup: runs whose time is dropped
    min_samples: sampling goes on at least until there are so many
    min_seconds: sampling goes on at least until the samples add up to so long on the device (s)
    relative_error: sampling then goes on until the standard error of the median is at most this, relative to
        the median
    max_seconds: sampling ends when so long has passed since the first sample that is kept (s), but not before
        min_samples
    """

    warmup: Annotated[int, Field(ge=0)] = 2
    min_samples: Annotated[int, Field(ge=5)] = 10
    min_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    relative_error: Annotated[float, Field(gt=0, lt=1)] = 0.005

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_seconds > self.max_seconds:
            raise ValueError(
                f"expected min_seconds to be at most max_seconds, got {self.min_seconds} "
                f"and {self.max_seconds}"
            )
        return self


# For a time on which nothing depends: as few samples as tell its error.
BRIEF = SamplingSettings(warmup=1, min_samples=5, min_seconds=0.0, max_seconds=1e-3)


class Timing(Value):
    """Samples of one quantity in ms, and what they show.

    median_ms: their median (ms)
    iqr_ms: the distance between their quartiles (ms)
    p90_ms: their 90th percentile (ms)
    n: how many there are
    stopped_by: `precision` where the relative standard error of the median was reached, `time` where
        max_seconds came first
    samples_ms: the samples, in the order taken (ms)
    runs: how many runs a sample is the mean of
    """

    median_ms: float
    iqr_ms: float
    p90_ms: float
    n: int
    stopped_by: Literal["precision", "time"]
    samples_ms: tuple[float, ...]
    runs: int = 1

    # Both errors are asked for again and again, and a value never changes.
    @cached_property
    def relative_error(self) -> float:
        """The standard error of the median, over the median."""
        return standard_error(sorted(self.samples_ms)) / self.median_ms

    @cached_property
    def lasting_error(self) -> float:
        """The same where a disturbance may outlast a sample, see `lasting_error`."""
        return lasting_error(self.samples_ms) / self.median_ms

    @property
    def device_s(self) -> float:
        """How long the device was busy with the samples (s)."""
        return sum(self.samples_ms) * self.runs / 1e3


def sample(
    run: Callable[[], float],
    *,
    settings: SamplingSettings,
    runs: int = 1,
    lasting: bool = False,
    clock: Callable[[], float] = perf_counter,
) -> Timing:
    """Calls `run` until the stopping rule of `settings` is met.

    The standard error takes the samples to be independent. Samples of one process are correlated, so it only
    decides when to stop. Only fresh processes show how far a figure can be repeated. Looking at the error
    after every sample favours a lucky early stop: in simulation the true error at the end is up to a fifth
    above `relative_error`.

    run: returns one elapsed time, the mean of `runs` runs (ms)
    settings: the stopping rule
    runs: how many runs a sample is the mean of
    lasting: whether a disturbance may outlast a sample, as other programs on a CPU do; the rule then uses
        `lasting_error` too
    clock: returns the time (s)
    """
    with _no_garbage_collection():
        for _ in range(settings.warmup):
            run()
        samples: list[float] = []
        ordered: list[float] = []
        on_device, started = 0.0, clock()
        while True:
            samples.append(run())
            insort(ordered, samples[-1])
            on_device += samples[-1] * runs / 1e3
            if len(samples) < settings.min_samples:
                continue
            least = settings.relative_error * median(ordered)
            if (
                on_device >= settings.min_seconds
                and standard_error(ordered) <= least
                and (not lasting or lasting_error(samples) <= least)
            ):
                return _timing(samples, "precision", runs)
            if clock() - started >= settings.max_seconds:
                return _timing(samples, "time", runs)


def standard_error(ordered: list[float]) -> float:
    """Standard error of the median of independent samples; infinite for fewer than 5.

    It is half the width of a distribution-free confidence interval between two order statistics, divided by
    its normal quantile z: (x[n-c+1] - x[c]) / 2z with c = (n+1)/2 - √n (Price & Bonett 2001, "Estimating the
    variance of the sample median", J. Stat. Comput. Simul. 68:295-305). z comes from the normal approximation
    of the binomial with continuity correction.

    ordered: the samples, ascending, of any continuous distribution
    """
    n = len(ordered)
    if n < 5:
        return inf
    c = max(1, round((n + 1) / 2 - sqrt(n)))
    z = (n + 1 - 2 * c) / sqrt(n)
    return (ordered[n - c] - ordered[c - 1]) / (2 * z)


def lasting_error(samples: Sequence[float]) -> float:
    """Standard error of the median of samples whose neighbours may be alike; infinite for fewer than 5.

    The samples are cut into equal parts, one after the other. The parts' medians differ by any disturbance
    that lasts as long as a part. The error is the standard error of the median of these medians, and at least
    that of independent samples. One part of eight may be disturbed altogether: it does not move the median.

    samples: in the order taken
    """
    parts = np.array_split(np.asarray(samples), min(_PARTS, len(samples)))
    return max(
        standard_error(sorted(samples)), standard_error(sorted(float(np.median(part)) for part in parts))
    )


def _timing(samples: list[float], stopped_by: Literal["precision", "time"], runs: int) -> Timing:
    low, middle, high, p90 = np.percentile(samples, [25, 50, 75, 90]).tolist()
    return Timing(
        median_ms=middle,
        iqr_ms=high - low,
        p90_ms=p90,
        n=len(samples),
        stopped_by=stopped_by,
        samples_ms=tuple(samples),
        runs=runs,
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # A collection inside a sample would be charged to whatever ran at that moment. `timeit` keeps it off for
    # the same reason. On a CPU only recent garbage is collected before: a full collection looks at all that
    # PyTorch has imported, which takes as long as a short measurement. On a GPU garbage holds its memory.
    import torch  # here, as what was timed is read without it

    enabled = gc.isenabled()
    gc.collect(2 if torch.cuda.is_initialized() else 1)
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
