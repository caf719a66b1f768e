"""A host's cores on a made-up clock: which of them samples come from, what taints, and the way back."""

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter, sleep

import pytest

from operators.base.threads import usable_cores
from profiler.measuring.quiet_core import QuietCore, beside, held, preemptions, run_on

BUSY = 1.6


class Host:
    """Cores of which each takes so many times as long as a quiet one, and where this thread runs.

    then: what the cores' paces become behind so many samples.
    """

    def __init__(self, *paces: float, then: dict[int, Sequence[float]] | None = None) -> None:
        self.paces: Sequence[float] = paces
        self.now, self.sampled, self.then = 0.0, 0, then or {}
        self.lost, self.shared = 0, set[int]()  # how often the thread lost a core, and those that it loses
        self.allowed = self.cores()
        self.quiet_core = QuietCore(
            lambda: self.work(1.0), lambda: self.now, self.cores, self.run_on, lambda: self.lost
        )

    def cores(self) -> list[int]:
        return list(range(len(self.paces)))

    def run_on(self, cores: Sequence[int]) -> None:
        self.allowed = list(cores)

    def work(self, s: float) -> float:
        """Computes for so long on a quiet core; returns what it took (s)."""
        took = s * self.paces[self.allowed[0]]
        self.now += took
        return took

    def sample(self) -> float:
        took = self.work(10.0)
        self.lost += self.allowed[0] in self.shared
        self.sampled += 1
        self.paces = self.then.get(self.sampled, self.paces)
        return took

    def samples(self, count: int) -> tuple[list[float], str]:
        with self.quiet_core.held() as tainted:
            elapsed = self.quiet_core.beside(self.sample)
            return [elapsed() for _ in range(count)], tainted()


def test_samples_come_from_a_quiet_core_and_all_cores_are_allowed_behind_them() -> None:
    host = Host(BUSY, BUSY, 1.0, BUSY)
    assert host.samples(3) == ([10.0] * 3, "")
    assert host.allowed == [0, 1, 2, 3]
    assert host.sampled == 1 + 3  # one warms the caches of the core


def test_all_cores_are_allowed_behind_an_error_too() -> None:
    host = Host(BUSY, 1.0)
    allowed = []
    with suppress(ZeroDivisionError), host.quiet_core.held():
        allowed = host.allowed
        raise ZeroDivisionError
    assert len(allowed) == 1
    assert host.allowed == [0, 1]


def test_a_sample_in_which_the_core_became_busy_is_dropped_and_another_core_is_tried() -> None:
    host = Host(1.0, BUSY, then={3: [BUSY, 1.0]})  # within the second sample, behind one to warm up
    assert host.samples(3) == ([10.0] * 3, "")
    assert host.sampled == (1 + 1 + 1) + (1 + 2)  # on each core one warms its caches; one is dropped


def test_a_sample_within_which_another_program_had_the_core_is_dropped() -> None:
    """Probes are shorter than the time that the system gives a program at once, so that they show nothing."""
    host = Host(1.0, 1.0)
    host.shared = {0}
    assert host.samples(2) == ([10.0] * 2, "")
    assert host.lost == 2  # the one that warms the caches, and the first sample


def test_a_pace_within_the_bound_is_quiet() -> None:
    host = Host(1.0, then={1: [1.125]})
    assert host.samples(2) == ([11.25] * 2, "")


@pytest.mark.parametrize(("quiet", "tainted"), [(7, False), (6, True)])
def test_samples_without_a_quiet_core_are_kept_and_taint_where_they_are_many(
    quiet: int, tainted: bool
) -> None:
    host = Host(1.0, then={1 + quiet: [BUSY]})
    times, why = host.samples(8)
    # The core becomes busy at the end of the last quiet sample, which is dropped.
    assert times == [10.0] * (quiet - 1) + [16.0] * (9 - quiet)
    assert bool(why) == tainted
    if tainted:
        assert "for 38% of the samples no core of the host was quiet, expected at most 25%" in why


def test_taints_are_of_the_samples_inside() -> None:
    host = Host(1.0, then={1: [BUSY], 4: [1.0]})
    assert host.samples(3)[1]
    assert host.samples(3)[1] == ""


def test_a_quiet_pace_is_known_from_before() -> None:
    host = Host(1.0)
    host.samples(1)
    host.paces = [BUSY]
    assert "for 100%" in host.samples(4)[1]


def test_without_a_core_nothing_is_dropped_and_nothing_tainted() -> None:
    def elapsed() -> float:
        return 1.0

    with held(None) as tainted:
        assert beside(None, elapsed) is elapsed
        assert tainted() == ""


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_THREAD"), reason="the system does not count for a thread")
def test_a_thread_that_waits_is_not_preempted_and_one_that_computes_beside_others_is() -> None:
    before = preemptions()
    sleep(0.01)
    assert preemptions() - before <= 1  # the system's own work may come between
    cores = usable_cores()
    run_on(cores[:1])
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])  # on the same core
    try:
        give_up = perf_counter() + 20
        while preemptions() - before < 3 and perf_counter() < give_up:
            pass
        assert preemptions() - before >= 3
    finally:
        run_on(cores)
        other.kill()
        other.wait()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not place threads")
def test_a_thread_is_placed_and_an_unknown_core_changes_nothing() -> None:
    before = usable_cores()
    try:
        run_on(before[:1])
        assert usable_cores() == before[:1]
        run_on([10**6])
        assert usable_cores() == before[:1]
    finally:
        run_on(before)
    assert usable_cores() == before
