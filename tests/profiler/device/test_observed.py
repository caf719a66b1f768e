"""A process that a tool watches measures nothing on a GPU."""

import pytest
import torch

from operators.base.errors import DeviceError
from profiler.device.observed import refuse_observed

MAPS = """7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/python3/torch/lib/libtorch_cuda.so
7f02-7f03 r-xp 00000000 08:01 13                     /opt/nvidia/cupti/lib/libcupti.so.12
7f04-7f05 rw-p 00000000 00:00 0
7f06-7f07 rw-p 00000000 00:00 0                      [stack]
"""


@pytest.mark.parametrize("name", ["CUDA_INJECTION64_PATH", "NSYS_PROFILING_SESSION_ID"])
def test_a_tool_that_the_driver_loads_is_named(name, tmp_path):
    with pytest.raises(DeviceError, match=f"{name}=/opt/tool.so is set, expected none"):
        refuse_observed({name: "/opt/tool.so"}, tmp_path / "none")


@pytest.mark.parametrize(
    "library",
    [
        "/opt/nvidia/nsight-systems/2025.1/target-linux-x64/libToolsInjection64.so",
        "/opt/a path/libcuda-TargetInjection.so",
        "/opt/sanitizer/libsanitizer-collection.so",
    ],
)
def test_a_tool_that_is_loaded_is_named(library, tmp_path):
    maps = tmp_path / "maps"
    maps.write_text(f"{MAPS}7f08-7f09 r-xp 00000000 08:01 14                 {library}\n")
    with pytest.raises(DeviceError, match=f"{library} is loaded"):
        refuse_observed({}, maps)


def test_cupti_that_torch_has_loaded_watches_nothing(tmp_path):
    maps = tmp_path / "maps"
    maps.write_text(MAPS)
    refuse_observed({"CUDA_INJECTION64_PATH": ""}, maps)


def test_the_profiler_of_pytorch_is_seen_from_every_thread(tmp_path):
    refuse_observed({}, tmp_path / "none")
    with (
        torch.autograd.profiler.profile(use_kineto=False),
        pytest.raises(DeviceError, match="PyTorch's profiler runs"),
    ):
        refuse_observed({}, tmp_path / "none")
    refuse_observed({}, tmp_path / "none")
