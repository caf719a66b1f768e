"""What a device can do at most."""

from collections.abc import Callable

import pytest

from profiler.device.ceilings import matrix_product_flops_per_s
from profiler.device.device import Device


def test_a_product_that_takes_two_milliseconds_tells_the_rate(
    cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []

    def timed(run: Callable[[], object]) -> float:
        results.append(run())
        return 2.0

    monkeypatch.setattr(cpu, "timed", timed)
    rate = matrix_product_flops_per_s(cpu)
    assert {result.shape for result in results} == {(1024, 1024)}
    assert rate == pytest.approx(
        1024 * 1024 * (2 * 1024) / 2e-3
    )  # each of the numbers is 1024 products and sums
