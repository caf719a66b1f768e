"""All GPUs of this machine: which ones `cuda` stands for where work can be spread, and how a process gets one
of them to itself.
"""

import os
import re

import torch

from profiler.device.device import open_device


def devices(name: str) -> tuple[str, ...]:
    """What can train at the same time on the device of that name: for `cuda` every GPU that is like the
    first, otherwise itself alone.

    Raises DeviceError as `open_device` does. GPUs of another kind are left out: they have other speeds and
    less or more memory.
    """
    first = open_device(name)
    if name != "cuda":
        return (first.label,)
    found = enumerate(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return tuple(f"cuda:{index}" for index, kind in found if kind == first.name)


def alone(name: str) -> dict[str, str]:
    """The environment in which a process sees the GPU of that name, `cuda:N` here, as its only one; for a CPU
    there is nothing to set.

    Kernel libraries launch on the first GPU of a thread whatever their tensors are on, and a GPU that is
    merely seen loses memory to it.
    """
    if (match := re.fullmatch(r"cuda:(\d+)", name)) is None:
        return {}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": seen.split(",")[int(match[1])].strip() if seen else match[1]}
