"""The clock of multiprocessors: as a GPU counts it, and what is said where it cannot be counted."""

import sys

import pynvml
import pytest
import torch

from profiler.device.device import open_device
from profiler.device.sm_clock import sm_clock


def test_without_triton_it_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("triton", "operators.kernels.multiprocessor_clock"):
        monkeypatch.setitem(sys.modules, name, None)
    clock, reason = sm_clock(torch.device("cuda", 0))
    assert clock() is None
    assert "operators.kernels.multiprocessor_clock" in reason


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_is_that_of_the_driver() -> None:
    device = open_device("cuda:0")
    clock, reason = sm_clock(device.torch_device)
    assert not reason
    # Under a load, so that the driver's sample is of the same clock.
    x = torch.randn(4096, 4096, device=device.torch_device, dtype=device.dtype)
    for _ in range(200):
        x @ x
    device.synchronize()
    first, told = clock(), device.reading().sm_clock_mhz
    second = clock()
    assert first is not None
    assert second is not None
    assert told is not None
    assert first == pytest.approx(second, rel=0.03)
    # The driver samples every few milliseconds, and clocks rise as a load ends.
    assert first == pytest.approx(told, rel=0.1)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert first <= 1.005 * pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)
