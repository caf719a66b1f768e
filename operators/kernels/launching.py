"""How our own Triton kernels of decoding are launched, and where they can be.

Each kernel of a decode step is small, and a launch that waits for the end of the kernel before costs more
than the work of many. So a kernel starts early, by programmatic dependent launch: it loads what the kernels
before do not write, such as weights, and only then waits for them. Every kernel lets the next one start
after its own wait. So what a kernel reads before its wait must not be written by the kernel just before it;
all earlier ones are done.
"""

import os
from functools import cache

import torch

from operators.kernels.libraries import refusal

# A processor with fewer lets every kernel wait for the end of the one before.
_CAPABILITY_OF_EARLY_START = 9


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, which needs no GPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def refuses_kernels(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels of decoding cannot serve this device and dtype; None where they can."""
    return None if interpreted() else refusal(device, dtype)


@cache
def starts_early(device: torch.device) -> bool:
    """Whether kernels on this device can start before the end of the one before."""
    if device.type != "cuda" or interpreted():
        return False
    return torch.cuda.get_device_capability(device)[0] >= _CAPABILITY_OF_EARLY_START


@cache
def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors the device has; 1 for a CPU, where the interpreter runs programs in turn."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def launch_options(device: torch.device, warps: int) -> dict[str, object]:
    """The arguments of a launch on this device beside the kernel's own.

    warps: of 32 threads, that run a program together
    """
    return {"num_warps": warps, **({"launch_pdl": True} if starts_early(device) else {})}
