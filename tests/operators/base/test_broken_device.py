"""A GPU that gave up is told apart from an error after which the process can go on."""

import subprocess
import sys

import pytest
import torch

from operators.base.broken_device import fault_of, faults_told
from operators.base.errors import BrokenDeviceError

GIVEN_UP = (
    "CUDA error: an illegal memory access was encountered\nSearch for its name.\nFor debugging consider"
)
TRAINS_OUTSIDE_OF_MEMORY = """
import torch
from operators.base.broken_device import fault_of, faults_told
from operators.base.errors import BrokenDeviceError
from tests.helpers.faulty_kernels import store_far_outside

x = torch.zeros(8, device="cuda")
try:
    with faults_told("cuda:0"):
        store_far_outside(x)
        x.sum().item()
except BrokenDeviceError as error:
    print(error)
print(bool(fault_of("cuda:0")))
"""


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize(device: torch.device) -> None:
        raise RuntimeError(GIVEN_UP)

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)


def test_an_error_of_a_gpu_that_gave_up_is_told_as_that(given_up: None) -> None:
    message = (
        r"^device cuda:0 gave up: CUDA error: an illegal memory access was encountered; a new process can"
    )
    with pytest.raises(BrokenDeviceError, match=message) as raised, faults_told("cuda:0"):
        raise ValueError("not finite")
    assert isinstance(raised.value.__cause__, ValueError)


def test_any_other_error_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    with pytest.raises(ValueError, match="not finite"), faults_told("cuda:1"):
        raise ValueError("not finite")
    assert asked == [torch.device("cuda:1")]


def test_a_cpu_and_a_training_that_ends_well_are_not_asked(given_up: None) -> None:
    with faults_told("cuda:0"):
        pass
    with pytest.raises(ValueError, match="not finite"), faults_told("cpu"):
        raise ValueError("not finite")
    assert not fault_of("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_kernel_that_stores_outside_of_memory_breaks_the_gpu_for_its_process() -> None:
    command = [sys.executable, "-c", TRAINS_OUTSIDE_OF_MEMORY]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said[0].startswith("device cuda:0 gave up: CUDA error: an illegal memory access")
    assert said[1] == "True"
    assert torch.zeros(2, device="cuda").sum().item() == 0
