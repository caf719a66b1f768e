"""A GPU that gave up: after an illegal access every call to it fails in the process that made it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from operators.base.errors import BrokenDeviceError, first_line


@contextmanager
def faults_told(device: str) -> Iterator[None]:
    """Raises BrokenDeviceError where an error inside left the device of no use to this process.

    Kernels run behind the calls that start them. So the error itself names neither the kernel nor, at times,
    the fault.

    device: cpu or cuda:N.
    """
    try:
        yield
    except Exception as error:  # any error can be the first that tells of a fault
        if fault := fault_of(device):
            raise BrokenDeviceError(f"device {device} gave up: {fault}; a new process can use it") from error
        raise


def fault_of(device: str) -> str:
    """Why the device does not work for this process any more, in one line; nothing where it does."""
    if device == "cpu":
        return ""
    try:
        torch.cuda.synchronize(torch.device(device))
    except RuntimeError as error:
        return first_line(error)
    return ""
