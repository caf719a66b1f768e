"""The Triton kernels of `tests.helpers.faulty_operators`."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _store(pointer, offset):
    tl.store(pointer + offset, 1.0)


def store_far_outside(x: Tensor) -> None:
    """Writes 4 TiB behind x, where no memory is mapped."""
    _store[(1,)](x, 2**41)
