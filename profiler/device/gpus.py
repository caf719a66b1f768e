"""All GPUs of this machine: which of them `cuda` means, and how a process sees only one of them."""

import os
import re

import torch

from profiler.device.device import open_device


def devices(name: str) -> tuple[str, ...]:
    """What can train at the same time on the device of that name.

    For `cuda` that is every GPU like the first, otherwise the device alone. GPUs of another kind are left
    out, because their speed and memory differ.

    Raises DeviceError as `open_device` does.
    """
    first = open_device(name)
    if name != "cuda":
        return (first.label,)
    found = enumerate(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return tuple(f"cuda:{index}" for index, kind in found if kind == first.name)


def alone(name: str) -> dict[str, str]:
    """The environment in which a process sees one GPU as its only one; empty for a CPU.

    Kernel libraries launch on the first GPU of a thread, whatever device their tensors are on. A GPU that is
    merely visible loses memory to it.

    name: of the GPU in this process, `cuda:N`
    """
    if (match := re.fullmatch(r"cuda:(\d+)", name)) is None:
        return {}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": seen.split(",")[int(match[1])].strip() if seen else match[1]}
