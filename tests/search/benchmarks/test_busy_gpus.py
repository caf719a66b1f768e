"""The share of a time in which GPUs run kernels, from made-up samples of a driver."""

import time
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from operators.base.errors import DeviceError
from search.benchmarks import busy_gpus
from search.benchmarks.busy_gpus import watched


class MadeUpGpu:
    """A GPU that runs a kernel in a known share of each sample, by its UUID."""

    shares: ClassVar = {"GPU-0": 1.0, "GPU-1": 0.5}

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid

    def busy_share(self) -> float:
        if self.uuid not in self.shares:
            raise DeviceError("NVML: Not Supported")
        return self.shares[self.uuid]


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy_gpus, "Gpu", MadeUpGpu)
    monkeypatch.setattr(busy_gpus, "EVERY_S", 0.001)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=device.index)
    )


def test_the_share_is_the_mean_over_gpus() -> None:
    with watched(["cuda:0", "cuda:1"]) as watch:
        while watch.share is None:
            time.sleep(0.001)
    assert (watch.share, watch.refused) == (0.75, "")


def test_a_driver_that_tells_nothing_is_told_and_asked_no_more() -> None:
    with watched(["cuda:7"]) as watch:
        while not watch.refused:
            time.sleep(0.001)
    assert (watch.share, watch.refused) == (None, "NVML: Not Supported")


def test_a_cpu_is_not_looked_at() -> None:
    with watched(["cpu"]) as watch:
        time.sleep(0.01)
    assert (watch.share, watch.refused) == (None, "")
