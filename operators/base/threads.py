"""How many threads computations take, and the cores that there are for them.

This module imports neither numpy nor torch. Numpy's library reads its number of threads when it is loaded,
and torch loads numpy.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

NUMPY_THREADS = "OPENBLAS_NUM_THREADS"


def import_numpy() -> None:
    """Imports numpy with one thread, unless the variable sets another number.

    A search multiplies thousands of small matrices. Several threads would wait for each other, spinning,
    longer than they work. The variable is removed again, so that whatever is loaded or started later does not
    see it.
    """
    if NUMPY_THREADS in os.environ:
        return
    os.environ[NUMPY_THREADS] = "1"
    import numpy  # noqa: F401

    del os.environ[NUMPY_THREADS]


def compute_with_one_thread() -> None:
    """Sets one thread for this process, which runs beside others that compute.

    Several threads of each would wait for each other's cores.
    """
    import_numpy()
    import torch

    torch.set_num_threads(1)


def usable_cores() -> list[int]:
    """The numbers of the cores on which this thread may run: fewer than the machine has under `taskset`.

    Where the system does not tell, all cores of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Makes PyTorch compute with `count` threads inside, and restores the previous number afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
