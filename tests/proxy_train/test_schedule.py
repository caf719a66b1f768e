"""The learning rate over a run."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_train.schedule import DECAY, FLOOR, Schedule, ScheduleKind
from proxy_train.settings import ProxySettings


def test_cosine_by_hand() -> None:
    schedule = Schedule("cosine", steps=21, warmup=4)
    values = [schedule.share(step) for step in range(21)]
    assert values[:5] == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 1.0]
    )  # 4 steps of warm-up, then the cosine begins at its top
    assert values[12] == pytest.approx((1 + FLOOR) / 2)  # half way
    assert values[20] == pytest.approx(FLOOR)
    assert values[4:] == sorted(values[4:], reverse=True)


def test_warm_up_stable_decay_by_hand() -> None:
    schedule = Schedule("wsd", steps=20, warmup=2)
    assert DECAY == 0.2
    assert [schedule.share(step) for step in range(20)] == pytest.approx([0.5, *[1.0] * 16, 0.75, 0.5, 0.25])
    assert schedule.parting == 16


@given(st.sampled_from(["cosine", "wsd"]), st.integers(1, 500), st.floats(0, 0.99))
def test_a_share_is_between_nothing_and_the_peak(
    kind: ScheduleKind, steps: int, warmup_fraction: float
) -> None:
    schedule = Schedule(kind, steps, warmup=round(steps * warmup_fraction))
    values = [schedule.share(step) for step in range(steps)]
    assert all(0 < value <= 1 for value in values)
    assert max(values) == 1 or schedule.warmup == steps
    assert 0 <= schedule.parting <= steps


def test_budgets_warm_up_alike_and_part_late() -> None:
    settings = ProxySettings(
        tokens=64_000,
        batch_size=1,
        sequence_length=64,
        schedule="wsd",
        budgets=(6_400, 19_200),
        warmup_fraction=0.1,
    )
    schedules = settings.schedules()
    assert [schedule.steps for schedule in schedules] == [100, 300, 1000]
    assert {schedule.warmup for schedule in schedules} == {10}
    for schedule in schedules:
        assert schedule.parting == math.floor(0.8 * schedule.steps)
        together = range(schedule.parting)
        assert [schedule.share(step) for step in together] == [schedules[-1].share(step) for step in together]
