"""The conditions under which something was measured, and whether its figures can be trusted."""

import os
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, sleep, thread_time
from typing import Protocol, TypeVar

import torch

from profiler.device.device import Device
from profiler.device.lock import exclusive, members
from profiler.device.mps import is_server
from profiler.device.nvml import Reading
from profiler.device.observed import refuse_observed
from profiler.device.sm_clock import clock_moved, sm_clock
from profiler.measuring.anchor import Anchor
from profiler.measuring.quiet_core import QuietCore, held
from profiler.profile import Conditions, PointProfile, instability
from profiler.timing import Timing

# The drift of the anchor above which a measurement is tainted, relative to the mean. Times on a CPU are given
# relative to the anchor's (see `profiler.measuring.pace`). Beside one other program, which moved the anchor
# by up to a half, they were right. A larger drift means that the core belonged to another program.
MAX_DRIFT = {"cuda": 0.01, "cpu": 0.50}
# How many times slower or faster the anchor of a CPU may be than when the machine was first measured.
MAX_PACE = 2.0
# The part of a measurement in which its one thread must have had a core. With three programs on two cores the
# thread had a core two thirds of the time. Its times were off by 10 %, and by up to 37 %, even relative to
# the anchor's.
LEAST_SHARE = 0.9
# A shorter measurement shows nothing about the share, because the clocks' own steps weigh in it (s).
_TELLING_S = 0.05
# How long to wait before the second and each further attempt (s). Another program on a CPU comes and goes in
# seconds, so that it would still be there at once.
PAUSES_S = {"cuda": (0.0, 0.0), "cpu": (0.5, 2.0)}
# Reasons that show a GPU slower than it should be. A limit on power alone is no such reason: a GPU under load
# is always at it, and its clocks then follow the load.
_TAINTING_REASONS = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown")
_TAINTING_VIOLATIONS = ("thermal", "board_limit")
# After a load at its power limit, a GPU has lower clocks for a moment. On one H200 the anchor took 6 %
# longer just after the largest batches of ten models, and its usual time when the next attempt began, after
# 0.2 s of light work. So the anchor is timed again after such work, at most so often.
_POWER_LIMIT = "sw_power_cap"
_RECOVERIES = 3
_BEHIND_LOAD = "power: the anchor model took {:.1%} longer just after a load at the GPU's power limit"
_MPS = "MPS: a server of CUDA's Multi-Process Service is on this GPU; steps of its clients take longer"


class Timed(Protocol):
    @property
    def device_s(self) -> float:
        """How long the device was busy with the samples (s)."""


T = TypeVar("T", bound=Timed)


def watched(
    run: Callable[[], Sequence[T]],
    *,
    anchor: Anchor,
    device: Device,
    attempts: int,
    usual_ms: float | None = None,
    unstable: Callable[[T], bool] = lambda result: False,
    pause: Callable[[float], None] = sleep,
    share: Callable[[], Callable[[], float | None]] | None = None,
    clock: Callable[[], float | None] | None = None,
    core: QuietCore | None = None,
) -> tuple[tuple[T, ...], Conditions]:
    """Measures with the device locked between two timings of the anchor, again where the result is tainted.

    The last attempt counts. Raises DeviceError where a profiler watches the GPU.

    run: makes the measurements
    attempts: how often to measure at most
    usual_ms: a step of the anchor when this CPU was first measured (ms, see `profiler.measuring.pace`); None
        where times are not given by it
    unstable: whether a result is not clean by its own samples; it is then measured again too
    pause: waits for so many seconds between attempts, while the device is released
    share: begins to watch what computes, where this thread does not; as `core_share`
    clock: counts the clock of the multiprocessors (MHz); None for `sm_clock`
    core: of a GPU's host, where the results have work on it
    """
    if device.torch_device.type == "cuda":
        refuse_observed()
    clock, clock_unknown = (clock, "") if clock else sm_clock(device.torch_device)
    lock_s, busy_s, made = 0.0, 0.0, 0
    again = True
    while again and made < attempts:
        if made:
            pause(PAUSES_S[device.torch_device.type][min(made, 2) - 1])
        made += 1
        with exclusive(device.label):
            started = perf_counter()
            anchor.warm_up()
            before, anchor_before = device.reading(), anchor.time()
            clock_before = clock()
            shared_with_others = share() if share else core_share(device)
            with held(core) as disturbed:
                results = tuple(run())
                own_share, slower = shared_with_others(), disturbed()
            clock_after = clock()
            anchor_after, after = anchor.time(), device.reading()
            max_drift, behind_load = MAX_DRIFT[device.torch_device.type], ""
            if _POWER_LIMIT in after.clock_reasons and _drift(anchor_before, anchor_after) > max_drift:
                behind_load = _BEHIND_LOAD.format(_drift(anchor_before, anchor_after))
                anchor_after = _recovered(anchor, anchor_before, max_drift)
            known = members(device)
            lock_s += perf_counter() - started
        busy_s += anchor_before.device_s + sum(result.device_s for result in results) + anchor_after.device_s
        mean = (anchor_before.median_ms + anchor_after.median_ms) / 2
        drift = _drift(anchor_before, anchor_after)
        listed = {pid for reading in (before, after) for pid in reading.pids or ()}
        servers = frozenset(filter(is_server, listed))  # of MPS: they only compute for their clients
        foreign, blind = foreign_processes((before, after), own=os.getpid(), known=known | servers)
        clock_reasons = tuple(dict.fromkeys((*before.clock_reasons, *after.clock_reasons)))
        violations = {
            name: after.violations_ns[name] - start
            for name, start in before.violations_ns.items()
            if name in after.violations_ns
        }
        tainted = (
            *_taints(drift, max_drift, foreign, clock_reasons, violations),
            *filter(None, (slower, lost_core(own_share), _other_pace(mean, usual_ms))),
        )
        again = bool(tainted) or any(map(unstable, results))
    unavailable = {**before.unavailable, **after.unavailable}
    if clock_unknown:
        unavailable["SM clock"] = clock_unknown
    return results, Conditions(
        anchor_before=anchor_before,
        anchor_after=anchor_after,
        drift=drift,
        max_drift=max_drift,
        before=before,
        after=after,
        clock_reasons=clock_reasons,
        violations_ns=violations,
        foreign_pids=foreign,
        notes=(*(f"{name}: {reason}" for name, reason in unavailable.items()), *blind),
        attempts=made,
        tainted=tainted,
        lock_s=lock_s,
        busy_s=busy_s,
        core_share=own_share,
        sm_mhz_before=clock_before,
        sm_mhz_after=clock_after,
        remarks=tuple(
            filter(None, (clock_moved(clock_before, clock_after), behind_load, _MPS if servers else ""))
        ),
    )


def _drift(before: Timing, after: Timing) -> float:
    return 2 * abs(after.median_ms - before.median_ms) / (after.median_ms + before.median_ms)


def _recovered(anchor: Anchor, before: Timing, max_drift: float) -> Timing:
    """The anchor's time once its clocks are back after a load at the power limit, or the last one."""
    for _ in range(_RECOVERIES):
        anchor.warm_up()
        after = anchor.time()
        if _drift(before, after) <= max_drift:
            break
    return after


def unsteady(point: PointProfile, *, counts_prefill: bool) -> bool:
    """Whether a timing that counts is not clean by its own samples, as other programs on a CPU cause it."""
    timings = [point.prefill, point.decode] if counts_prefill else [point.decode]
    return any(instability(timing, "cpu") for timing in timings)


def core_share(device: Device) -> Callable[[], float | None]:
    """Starts to watch this thread, and returns a function that gives its share of a core since then.

    The function returns None where the share is not known: on a GPU, with several threads, and after less
    than _TELLING_S.
    """
    alone = device.torch_device.type == "cpu" and torch.get_num_threads() == 1
    wall, own = perf_counter(), thread_time()

    def share() -> float | None:
        elapsed = perf_counter() - wall
        return (thread_time() - own) / elapsed if alone and elapsed >= _TELLING_S else None

    return share


def lost_core(share: float | None) -> str:
    """Why a measurement with this share of a core is tainted; empty where it is not.

    share: the result of `core_share`; None where it is not known
    """
    if share is None or share >= LEAST_SHARE:
        return ""
    return (
        f"core: other programs had it for {1 - share:.0%} of the time, expected at most {1 - LEAST_SHARE:.0%}"
    )


def _other_pace(anchor_ms: float, usual_ms: float | None) -> str:
    if usual_ms is None or 1 / MAX_PACE <= anchor_ms / usual_ms <= MAX_PACE:
        return ""
    return (
        f"pace: the anchor model took {anchor_ms:.4g} ms, {usual_ms:.4g} ms when this "
        "machine was first measured; "
        f"expected within a factor of {MAX_PACE:g}"
    )


def foreign_processes(
    readings: Sequence[Reading], *, own: int, known: frozenset[int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The PIDs on the device that are neither `own` nor `known`, and notes on what the readings do not show.

    A driver that does not list the own process numbers processes differently, as from outside a container.
    Then none can be told apart.

    readings: of the device
    own: the PID of this process
    known: PIDs of the processes that keep to the device's locks
    """
    listed = [set(reading.pids) for reading in readings if reading.pids is not None]
    if not listed:
        return (), ()
    seen = set().union(*listed)
    if own not in seen:
        return (), (
            f"foreign processes: the driver lists {len(seen)} processes and not this one: "
            "it numbers them otherwise, as for a container",
        )
    return tuple(sorted(seen - known - {own})), ()


def _taints(
    drift: float,
    max_drift: float,
    foreign: Sequence[int],
    clock_reasons: Sequence[str],
    violations_ns: Mapping[str, int],
) -> tuple[str, ...]:
    tainted = []
    if drift > max_drift:
        tainted.append(f"drift: the anchor model changed by {drift:.1%}, expected at most {max_drift:.0%}")
    if foreign:
        tainted.append(f"foreign processes on the device: {', '.join(map(str, foreign))}")
    tainted += [f"clocks held back: {reason}" for reason in clock_reasons if reason in _TAINTING_REASONS]
    tainted += [
        f"clocks held back: {name} limit for {violations_ns[name] / 1e6:.3g} ms"
        for name in _TAINTING_VIOLATIONS
        if violations_ns.get(name)
    ]
    return tuple(tainted)
