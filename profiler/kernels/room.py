"""A device's memory, shared out to processes that each know how much they will need."""

from threading import Condition

# What a process holds on a GPU before its first tensor: the driver's context and the libraries' kernels.
CONTEXT_BYTES = 1 << 30
# The share of the memory that is given out: allocators hold more than what is in use.
GIVEN_OUT = 0.8


class Room:
    """Memory of the device that processes use at once.

    processes: how many share it
    share: of the memory that was free at first, how much is given out
    """

    def __init__(self, processes: int, share: float = GIVEN_OUT) -> None:
        self._processes, self._share = processes, share
        self._changed = Condition()
        self._taken = 0
        self._total: float | None = None

    def take(self, size: int, free: int) -> None:
        """Waits until `size` bytes are left, and takes them; for more than the total, until it is alone.

        free: bytes that the device had left; the first ones to ask say how much there is
        """
        with self._changed:
            if self._total is None:
                self._total = self._share * (free - self._processes * CONTEXT_BYTES)
            total = self._total
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + size <= total)
            self._taken += size

    def give_back(self, size: int) -> None:
        with self._changed:
            self._taken -= size
            self._changed.notify_all()
