"""The share of a time in which GPUs ran kernels, of any process, as their driver samples it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from threading import Event, Thread

import torch

from operators.base.errors import DeviceError
from profiler.device.nvml import Gpu

EVERY_S = 0.25  # seconds from one look to the next; a sample of the driver takes 1/6 to 1 s


class Watch:
    """What was seen so far. refused: why nothing more can be seen; empty where all is well."""

    def __init__(self) -> None:
        self._seen: list[float] = []
        self.refused = ""

    @property
    def share(self) -> float | None:
        """The mean over GPUs and looks, 0 to 1; None where nothing was seen."""
        return fmean(self._seen) if self._seen else None

    def look(self, gpus: Sequence[Gpu]) -> None:
        try:
            self._seen.append(fmean(gpu.busy_share() for gpu in gpus))
        except DeviceError as error:
            self.refused = str(error)


@contextmanager
def watched(devices: Sequence[str]) -> Iterator[Watch]:
    """Inside, GPUs are looked at every EVERY_S by a thread of their own. Other devices tell nothing.

    devices: as in cuda:0
    """
    names = [torch.device(device) for device in devices if device.startswith("cuda")]
    gpus = [Gpu(f"GPU-{torch.cuda.get_device_properties(name).uuid}") for name in names]
    watch, ended = Watch(), Event()
    if not gpus:
        yield watch
        return

    def look() -> None:
        while not ended.wait(EVERY_S) and not watch.refused:
            watch.look(gpus)

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
