"""Finds the few configurations of the libraries' kernels that are worth trying on the GPU at hand.

`operators/kernels/tuned/` holds them.
"""

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from operators.kernels.libraries import FULL_TUNING, autotuners, described
from profiler.kernels.prepare import Job, Workload, prepare
from profiler.process.pool import process_pool

# How much slower than the best a configuration may be, relative to the best.
TOLERANCE = 0.05
# Small kernels vary by this much from one run to the next (ms).
TOLERATED_MS = 0.002
LIBRARIES = ("fla", "mamba_ssm")

# The time of every configuration (ms), per kernel and case. A configuration is plain data. Its time is
# infinite if it does not run.
Timings = dict[str, list[list[tuple[dict[str, Any], float]]]]


def measure_configurations(work: Sequence[Job]) -> Timings:
    """Times every configuration of every kernel that the jobs need.

    All are first compiled by as many processes as there are cores, which takes minutes. Then one process
    after the other times them.
    """
    os.environ[FULL_TUNING] = "1"
    found: Timings = {}
    try:
        with process_pool(tasks_each=1) as pool:
            list(pool.map(partial(prepare, compile_only=True), work))
        with process_pool(1, tasks_each=1) as pool:
            for timings in pool.map(_timings, work):
                for kernel, cases in timings.items():
                    found.setdefault(kernel, []).extend(cases)
    finally:
        del os.environ[FULL_TUNING]
    return found


def _timings(job: Job) -> Timings:
    found: Timings = {}
    nothing = job.workload.model_copy(update={"training": (), "decoding": ()})
    # A kernel remembers only its last case.
    for part in ("training", "decoding"):
        workload: Workload = nothing.model_copy(update={part: getattr(job.workload, part)})
        prepare(Job(job.architecture, workload, job.device, job.backend))
        for library in LIBRARIES:
            for name, kernel in autotuners(library):
                if timings := getattr(kernel, "configs_timings", None):
                    found.setdefault(name, []).append(
                        [(described(config), _median(ms)) for config, ms in timings.items()]
                    )
    return found


def _median(measured: Any) -> float:
    return float(measured[0] if isinstance(measured, list | tuple) else measured)


def choose(timings: Timings) -> dict[str, list[dict[str, Any]]]:
    """The fewest configurations per kernel of which one, in every case, is close to the best.

    Close means at most TOLERANCE slower than the best of all.
    """
    return {
        kernel: _cover(cases)
        for kernel, cases in sorted(timings.items())
        if any(_good(case) for case in cases)
    }


def slowdown(timings: Timings, kept: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """How much slower the best kept configuration is than the best of all, by kernel and in the worst case.

    The slowdown is relative to the best of all. It is 0 where the difference is below what is tolerated of
    small kernels, and for a kernel that keeps all. It is infinite where no kept configuration runs.

    timings: of all configurations
    kept: the configurations that are kept, by kernel
    """
    found = {}
    for kernel, cases in timings.items():
        known = kept.get(kernel, ())
        worst = 0.0
        for case in cases:
            times = [ms for _, ms in case if math.isfinite(ms)]
            allowed = [ms for config, ms in case if not known or config in known]
            if times and min(allowed, default=math.inf) > min(times) + TOLERATED_MS:
                worst = max(worst, min(allowed, default=math.inf) / min(times) - 1)
        found[kernel] = worst
    return found


def _cover(cases: list[list[tuple[dict[str, Any], float]]]) -> list[dict[str, Any]]:
    open_cases = [good for case in cases if (good := _good(case))]
    plain = {key: config for case in cases for config, _ in case if (key := repr(config))}
    chosen: list[dict[str, Any]] = []
    while open_cases:
        # The most cases count first, then the least slowdown in them. The name only makes the choice
        # repeatable.
        best = min(
            plain,
            key=lambda key: (
                -sum(key in good for good in open_cases),
                sum(good.get(key, 0.0) for good in open_cases),
                key,
            ),
        )
        chosen.append(plain[best])
        open_cases = [good for good in open_cases if best not in good]
    return chosen


def _good(case: list[tuple[dict[str, Any], float]]) -> Mapping[str, float]:
    """The slowdown of each configuration (as text) that is good enough in a case."""
    finite = [(repr(config), ms) for config, ms in case if math.isfinite(ms)]
    if not finite:
        return {}
    best = min(ms for _, ms in finite)
    return {key: ms / best for key, ms in finite if ms <= max(best * (1 + TOLERANCE), best + TOLERATED_MS)}
