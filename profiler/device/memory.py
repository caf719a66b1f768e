"""Where a device's memory runs out, and where it goes back."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from operators.base.errors import flat
from operators.base.freed_memory import give_back_freed_memory


@contextmanager
def memory_errors(where: str = "") -> Iterator[None]:
    """Raises one kind of error where PyTorch runs out of memory: MemoryError or torch.OutOfMemoryError.

    where: begins the message

    Raises MemoryError on a CPU.
    Raises torch.OutOfMemoryError on a GPU.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(_told(where, error)) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise MemoryError(_told(where, error)) from error


def give_back_memory() -> None:
    """Gives back what a training used and nothing holds any more, for the next measurement's process."""
    gc.collect()
    # After an illegal access every call fails, which the training has reported.
    with suppress(RuntimeError):
        torch.cuda.empty_cache()
    give_back_freed_memory()


def _told(where: str, error: Exception) -> str:
    return flat(f"{where}{': ' if where else ''}{error}")
