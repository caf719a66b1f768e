"""Finds, for the GPU at hand, the few configurations of the libraries' kernels that are worth trying: what
`operators/kernels/tuned/` holds.
"""

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

from operators.kernels.libraries import FULL_TUNING, autotuners, described
from profiler.kernels.warm import Job, Workload, prepare

TOLERANCE = 0.05
TOLERATED_MS = 0.002  # small kernels vary by this much from one run to the next
LIBRARIES = ("fla", "mamba_ssm")

# Per kernel and case, the time in ms of every configuration (plain data, infinite if it does not run).
Timings = dict[str, list[list[tuple[dict[str, Any], float]]]]


def measure_configurations(work: Sequence[Job]) -> Timings:
    """Times every configuration of every kernel that the jobs need.

    All are compiled first, by as many processes as there are cores, for minutes; then they are timed by one
    process after the other.
    """
    os.environ[FULL_TUNING] = "1"
    found: Timings = {}
    try:
        with _fresh_processes(None) as pool:
            list(pool.map(partial(prepare, compile_only=True), work))
        with _fresh_processes(1) as pool:
            for timings in pool.map(_timings, work):
                for kernel, cases in timings.items():
                    found.setdefault(kernel, []).extend(cases)
    finally:
        del os.environ[FULL_TUNING]
    return found


def _fresh_processes(count: int | None) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), max_tasks_per_child=1)


def _timings(job: Job) -> Timings:
    found: Timings = {}
    nothing = job.workload.model_copy(update={"training": (), "decoding": ()})
    for part in ("training", "decoding"):  # a kernel remembers the last case alone
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
    """Per kernel the fewest configurations one of which, in every case, is at most TOLERANCE slower than the
    best of all.
    """
    return {
        kernel: _cover(cases)
        for kernel, cases in sorted(timings.items())
        if any(_good(case) for case in cases)
    }


def slowdown(timings: Timings, kept: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """By kernel, how much slower, relative to it, the best of the configurations that are kept is than the
    best of all, in the worst case.

    0 where the difference is below what is tolerated of small kernels, and for a kernel that keeps all;
    infinite where no kept one runs.
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
        # The most cases first, then the least slowdown in them; the name only makes the choice repeatable.
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
    """Configurations (as text) that are good enough in a case -> their slowdown."""
    finite = [(repr(config), ms) for config, ms in case if math.isfinite(ms)]
    if not finite:
        return {}
    best = min(ms for _, ms in finite)
    return {key: ms / best for key, ms in finite if ms <= max(best * (1 + TOLERANCE), best + TOLERATED_MS)}
