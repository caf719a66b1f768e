"""What a device can do at most."""

from collections.abc import Callable

import pytest
import torch

from profiler.device import ceilings
from profiler.device.ceilings import copy_bytes_per_s, matrix_product_flops_per_s
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


@pytest.mark.usefixtures("own_locks")
def test_a_copy_that_takes_four_milliseconds_reads_and_writes_all_bytes_in_them(
    cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def mean_time(run: Callable[[], torch.Tensor], **how: object) -> float:
        sizes.append(run().nbytes)
        return 4.0

    monkeypatch.setattr(cpu, "mean_time", mean_time)
    monkeypatch.setattr(ceilings, "open_device", lambda label: cpu)
    monkeypatch.setitem(ceilings.COPY_BYTES, "cpu", 1000)
    ceilings._measured.cache_clear()  # it is measured once in a process
    rate = copy_bytes_per_s(cpu)
    ceilings._measured.cache_clear()
    assert set(sizes) == {1000}
    assert rate == pytest.approx(2 * 1000 / 4e-3)
