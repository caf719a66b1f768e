"""A device's memory, shared out to processes that each know how much they will need."""

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext

import torch

# What a process holds on a GPU before its first tensor: the driver's context and the libraries' kernels.
CONTEXT_BYTES = 1 << 30
# The share of the memory that is given out: allocators hold more than what is in use.
GIVEN_OUT = 0.8


class Room:
    """Memory of the device that processes use at once.

    processes: how many share it
    """

    def __init__(self, context: SpawnContext, processes: int) -> None:
        self._processes = processes
        self._changed = context.Condition()
        self._taken = context.Value("q", 0, lock=False)
        self._total = context.Value("q", 0, lock=False)  # 0 until the first process has asked the device

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Waits until `size` bytes are left, and holds them. A size beyond the total is held alone."""
        with self._changed:
            if self._total.value == 0:
                self._total.value = max(1, self._free())
            self._changed.wait_for(
                lambda: self._taken.value == 0 or self._taken.value + size <= self._total.value
            )
            self._taken.value += size
        try:
            yield
        finally:
            with self._changed:
                self._taken.value -= size
                self._changed.notify_all()

    def _free(self) -> int:
        free, _ = torch.cuda.mem_get_info()
        return int(GIVEN_OUT * (free - self._processes * CONTEXT_BYTES))
