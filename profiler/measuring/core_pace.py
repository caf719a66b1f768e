"""Whether a core of a GPU's host kept its pace, where a time has work on it besides the GPU's.

A picture is prepared on one core before the GPU begins. While forty models were measured on an H200, that
took up to 1.7 times as long, for half a minute, and the times of the GPU stayed the same (record
h200/vision_table). The anchor model does not show that: it runs on the GPU. Another program on the processor
can be the reason. So can memory that goes back to the system (see `operators.base.freed_memory`): in a later
search on such a host, some processes took 1.6 times as long for this work, but not for small pictures, and
processes beside them did not.
"""

from collections.abc import Callable
from math import inf
from statistics import median
from time import perf_counter
from typing import Any

# How much longer than at its fastest the work may take. Where the core was steady there, times spread by 2 %.
MOST_SLOWER = 0.05
_RUNS = 5  # the median of these counts: one that was interrupted tells nothing


class CorePace:
    """The pace of this thread's core, by work that is always the same.

    work: runs on the core alone, for some milliseconds
    clock: tells the time (s)
    """

    def __init__(self, work: Callable[[], Any], clock: Callable[[], float] = perf_counter) -> None:
        self._work, self._clock = work, clock
        self._fastest_s, self._before_s = inf, 0.0

    def begin(self) -> None:
        """Times the work before a measurement."""
        self._before_s = self._timed()

    def slower(self) -> str:
        """Why what was measured since `begin` is tainted; empty where it is not.

        The fastest time since this object was made is the measure.
        """
        slowest_s = max(self._before_s, self._timed())
        excess = slowest_s / self._fastest_s - 1
        if excess <= MOST_SLOWER:
            return ""
        return (
            f"core: the same work took {excess:.0%} longer than at its fastest, "
            f"expected at most {MOST_SLOWER:.0%}: something else uses the processor"
        )

    def _timed(self) -> float:
        def once() -> float:
            began = self._clock()
            self._work()
            return self._clock() - began

        took_s = median(once() for _ in range(_RUNS))
        self._fastest_s = min(self._fastest_s, took_s)
        return took_s
