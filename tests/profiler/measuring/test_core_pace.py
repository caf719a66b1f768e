"""The pace of a host's core, on a made-up clock: what is told of it, and what it taints."""

from collections.abc import Sequence

import pytest

from profiler.measuring.core_pace import CorePace


def paced(seconds: Sequence[float]) -> CorePace:
    """A core whose work takes these seconds, one after the other."""
    left, now = list(seconds), [0.0]

    def work() -> None:
        now[0] += left.pop(0)

    return CorePace(work, clock=lambda: now[0])


def test_a_steady_core_taints_nothing_and_a_single_interruption_neither() -> None:
    core = paced([1, 1, 9, 1, 1, 1.04, 1.04, 1.04, 9, 1.04])
    core.begin()
    assert core.slower() == ""


@pytest.mark.parametrize("slow_first", [True, False])
def test_a_core_that_changed_its_pace_taints_whichever_side_was_slow(slow_first: bool) -> None:
    slow, fast = [1.6] * 5, [1.0] * 5
    core = paced([*slow, *fast] if slow_first else [*fast, *slow])
    core.begin()
    assert "took 60% longer than at its fastest, expected at most 5%" in core.slower()


def test_a_core_that_stays_slow_is_seen_by_what_it_was_before() -> None:
    core = paced([1.0] * 10 + [1.7] * 10)
    core.begin()
    assert core.slower() == ""
    core.begin()
    assert "70%" in core.slower()
