"""A core of a GPU's host at its full pace, where a time has work on it besides the GPU's.

A picture is prepared on one core before the GPU begins. On virtual machines that took 1.6 times as long on
some cores as on others. It is one or the other, with little between, as where two virtual cores share a
physical one and both have work. On one host a core changed between the two every minute, on another one every
second or two, and most of its cores were slow at any time. The anchor model does not show it: it runs on the
GPU. So samples of such a time are taken between two short probes on the same core. Where that was not quiet,
or another program had it in between, the sample is dropped and another core is tried.
"""

import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from math import inf
from time import perf_counter
from typing import Any

from operators.base.threads import usable_cores

# How much longer than at its fastest a probe may take. On quiet cores they spread by 10 %.
MOST_SLOWER = 0.20
# The share of samples without a quiet core above which a measurement is tainted: their median is then not
# far enough from the slow samples.
MOST_DISTURBED = 0.25
# The faster one counts: the first finds other work's data in the caches.
_RUNS = 2
# Cores that are tried for a sample: enough to find a quiet one where one in seven is.
_TRIED = 16
# Probes of each core, or of each of _TRIED, before the first sample: they show the pace of a quiet one.
_FIRST_PROBES = 5


def run_on(cores: Sequence[int]) -> None:
    """Lets this thread run on these cores alone. It changes nothing where the system does not do that."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, cores)


def preemptions() -> int:
    """How often the system took the core from this thread for another; 0 where it does not tell."""
    if not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


class QuietCore:
    """Takes samples on a core on which a probe takes about as long as at its fastest.

    probe: is always the same work, on one core, for less than a millisecond
    clock: tells the time (s)
    cores: tells the cores on which this thread may run
    run_on: lets this thread run on the given cores alone
    preemptions: counts how often this thread lost its core to another
    """

    def __init__(
        self,
        probe: Callable[[], Any],
        clock: Callable[[], float] = perf_counter,
        cores: Callable[[], Sequence[int]] = usable_cores,
        run_on: Callable[[Sequence[int]], None] = run_on,
        preemptions: Callable[[], int] = preemptions,
    ) -> None:
        self._probe, self._clock, self._all, self._run_on = probe, clock, cores, run_on
        self._preemptions = preemptions
        self._fastest_s = inf
        self._cores: Sequence[int] = (0,)
        self._at = 0  # which of the cores this thread is on
        self._samples = self._disturbed = 0

    @contextmanager
    def held(self) -> Iterator[Callable[[], str]]:
        """Keeps this thread on one core at a time inside.

        The function that it gives tells why the samples that `beside` took inside are tainted, and nothing
        where they are not.
        """
        self._cores, self._samples, self._disturbed = self._all(), 0, 0
        try:
            if self._fastest_s == inf:
                self._learn()
            self._move(0)
            yield self._tainted
        finally:
            self._run_on(self._cores)

    def beside(self, elapsed: Callable[[], float]) -> Callable[[], float]:
        """A function that calls `elapsed` and returns its time (ms), from a quiet core where there is one.

        The first time behind a move warms the caches of that core, and is dropped. Call the function inside
        `held`.
        """
        at = -1  # the core whose caches hold this work

        def on_a_quiet_core() -> float:
            nonlocal at
            for _ in range(_TRIED):
                if self._quiet():
                    if at != self._at:
                        at = self._at
                        elapsed()
                    before, ms = self._preemptions(), elapsed()
                    if self._preemptions() == before and self._quiet():
                        self._samples += 1
                        return ms
                self._move(1)
            self._samples += 1
            self._disturbed += 1
            return elapsed()

        return on_a_quiet_core

    def _learn(self) -> None:
        for _ in range(_FIRST_PROBES * min(len(self._cores), _TRIED)):
            self._timed()
            self._move(1)

    def _move(self, by: int) -> None:
        self._at = (self._at + by) % len(self._cores)
        self._run_on([self._cores[self._at]])

    def _quiet(self) -> bool:
        return self._timed() <= (1 + MOST_SLOWER) * self._fastest_s

    def _timed(self) -> float:
        took_s = inf
        for _ in range(_RUNS):
            began = self._clock()
            self._probe()
            took_s = min(took_s, self._clock() - began)
        self._fastest_s = min(self._fastest_s, took_s)
        return took_s

    def _tainted(self) -> str:
        share = self._disturbed / max(1, self._samples)
        if share <= MOST_DISTURBED:
            return ""
        return (
            f"core: for {share:.0%} of the samples no core of the host was quiet, "
            f"expected at most {MOST_DISTURBED:.0%}: other programs use the processor"
        )


def held(core: QuietCore | None) -> AbstractContextManager[Callable[[], str]]:
    """As `core.held`; without a core, nothing is tainted."""
    return nullcontext(lambda: "") if core is None else core.held()


def beside(core: QuietCore | None, elapsed: Callable[[], float]) -> Callable[[], float]:
    """As `core.beside`; without a core, `elapsed` itself."""
    return elapsed if core is None else core.beside(elapsed)
