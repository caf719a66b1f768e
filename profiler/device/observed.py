"""Whether a tool watches what this process does on the GPU, which makes its kernels slower.

That CUPTI is mapped shows nothing: PyTorch links it. Tools leave other traces: the variables that have the
driver load them, and their own libraries. PyTorch's profiler says itself that it runs. A tool that leaves no
such trace is not found.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from operators.base.errors import DeviceError

# They have the CUDA driver load a tool into the process, or say that one did.
_VARIABLES = (
    "CUDA_INJECTION32_PATH",
    "CUDA_INJECTION64_PATH",
    "NSYS_PROFILING_SESSION_ID",
    "NV_COMPUTE_PROFILER_PERFWORKS_DIR",
    "NV_SANITIZER_INJECTION_PORT_BASE",
)
# Parts of the names of libraries that only such tools load: Nsight Systems, Nsight Compute, the sanitizer.
_LIBRARIES = ("libToolsInjection", "TargetInjection", "libsanitizer-collection", "libInterceptorInjection")


def refuse_observed(
    environment: Mapping[str, str] = os.environ,
    maps: Path = Path("/proc/self/maps"),
    torch_profiles: Callable[[], bool] = lambda: torch.autograd.profiler._is_profiler_enabled,
) -> None:
    """Raises DeviceError where a tool watches the GPU's work, with what shows it.

    environment: of this process
    maps: lists the libraries of this process, as Linux writes it
    torch_profiles: whether PyTorch's own profiler runs
    """
    for name in _VARIABLES:
        if value := environment.get(name):
            raise DeviceError(
                f"a profiler would make every kernel slower: {name}={value} is set, expected none "
                "while a GPU is measured"
            )
    try:
        mapped = maps.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        mapped = ""
    for path in sorted({line.split(maxsplit=5)[5] for line in mapped.splitlines() if line.count(" /")}):
        if any(part in Path(path).name for part in _LIBRARIES):
            raise DeviceError(
                f"a profiler makes every kernel slower: {path} is loaded, expected none "
                "while a GPU is measured"
            )
    if torch_profiles():
        raise DeviceError("PyTorch's profiler runs in this process, expected none while a GPU is measured")
