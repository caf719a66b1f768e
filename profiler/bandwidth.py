"""How fast a device's memory is: by the datasheet, and for a copy."""

from functools import cache

import torch

from profiler.device import Device, open_device
from profiler.lock import exclusive
from profiler.timing import SamplingSettings, sample

DATASHEET_BYTES_PER_S = {"NVIDIA H100 80GB HBM3": 3.35e12, "NVIDIA H200": 4.8e12}
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 27}  # far more than any cache holds
_COPIES = 4
_SETTINGS = {
    "cuda": SamplingSettings(warmup=3, min_samples=20, min_seconds=0.1, max_seconds=0.5),
    "cpu": SamplingSettings(warmup=1, min_samples=5, min_seconds=0.05, max_seconds=0.2),
}


def copy_bytes_per_s(device: Device) -> float:
    """Bytes read and written in a second by a copy within the device's memory; measured once a process and number of CPU threads.

    Takes the device's exclusive lock the first time.
    """
    return _measured(device.label, torch.get_num_threads())


@cache
def _measured(label: str, threads: int) -> float:
    device = open_device(label)
    with exclusive(label):
        found = _copy(device)
        device.release_memory()
    return found


def _copy(device: Device) -> float:
    kind = device.torch_device.type
    source = torch.randint(256, (COPY_BYTES[kind],), dtype=torch.uint8, device=device.torch_device)
    target = torch.empty_like(source)

    def copies() -> float:
        return device.mean_time(lambda: target.copy_(source), before=lambda: None, count=_COPIES)

    return 2 * COPY_BYTES[kind] / sample(copies, settings=_SETTINGS[kind], runs=_COPIES).median_ms * 1e3
