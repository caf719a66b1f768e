"""The most that a device can do: bandwidth by the data sheet and for a copy, and FLOP of a matrix product."""

from functools import cache

import torch

from profiler.device.device import Device, open_device
from profiler.device.lock import exclusive
from profiler.device.names import computes_on
from profiler.timing import SamplingSettings, sample

DATASHEET_BYTES_PER_S = {"NVIDIA H100 80GB HBM3": 3.35e12, "NVIDIA H200": 4.8e12}
# Far more than any cache holds.
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 27}
# Large enough that a product runs at the device's full rate.
PRODUCT_SIDE = {"cuda": 8192, "cpu": 1024}
_COPIES = 4
# So many bytes are drawn at random and repeated, because a CPU would need a second to draw all.
_DRAWN_BYTES = 1 << 20
_SETTINGS = {
    "cuda": SamplingSettings(warmup=3, min_samples=20, min_seconds=0.1, max_seconds=0.5),
    "cpu": SamplingSettings(warmup=1, min_samples=5, min_seconds=0.05, max_seconds=0.2),
}


def copy_bytes_per_s(device: Device) -> float:
    """Bytes read and written in a second by a copy within the device's memory.

    It is measured once for each process and number of CPU threads, and takes the device's exclusive lock
    then.
    """
    return _measured(computes_on(device.label), torch.get_num_threads())


@cache
def _measured(label: str, threads: int) -> float:
    device = open_device(label)
    with exclusive(label):
        found = _copy(device)
        device.release_memory()
    return found


def _copy(device: Device) -> float:
    kind = device.torch_device.type
    size = COPY_BYTES[kind]
    drawn = torch.randint(256, (min(size, _DRAWN_BYTES),), dtype=torch.uint8, device=device.torch_device)
    source = drawn.repeat(size // len(drawn))
    target = torch.empty_like(source)

    def copies() -> float:
        return device.mean_time(lambda: target.copy_(source), before=lambda: None, count=_COPIES)

    return 2 * COPY_BYTES[kind] / sample(copies, settings=_SETTINGS[kind], runs=_COPIES).median_ms * 1e3


def matrix_product_flops_per_s(device: Device) -> float:
    """FLOP a second of a product of two square matrices; a multiply-add counts as 2.

    The matrices are in the dtype of the device's inference. Each call measures it anew. The caller holds the
    device's lock.
    """
    kind = device.torch_device.type
    side = PRODUCT_SIDE[kind]
    a, b = (torch.randn(side, side, device=device.torch_device, dtype=device.dtype) for _ in range(2))
    timing = sample(lambda: device.timed(lambda: a @ b), settings=_SETTINGS[kind])
    return 2 * side**3 / timing.median_ms * 1e3
