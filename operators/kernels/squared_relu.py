"""relu(x)² of feed-forward networks over whole sequences, in one kernel forward and one backward.

PyTorch takes two kernels forward and three backward. Each reads and writes all of the hidden numbers.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

# Numbers that a program computes: 16 for each of its 128 threads, which are two of the widest reads in 16
# bits.
_BLOCK = 2048


@triton.jit
def _squared(x, out, count, BLOCK: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    positive = tl.maximum(tl.load(x + places, mask=places < count, other=0.0).to(tl.float32), 0.0)
    tl.store(out + places, (positive * positive).to(out.dtype.element_ty), mask=places < count)


@triton.jit
def _gradient(x, of_out, of_x, count, BLOCK: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    positive = tl.maximum(tl.load(x + places, mask=places < count, other=0.0).to(tl.float32), 0.0)
    change = tl.load(of_out + places, mask=places < count, other=0.0).to(tl.float32)
    tl.store(of_x + places, (2.0 * positive * change).to(of_x.dtype.element_ty), mask=places < count)


class _SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        out = torch.empty_like(x)
        _squared[(triton.cdiv(x.numel(), _BLOCK),)](x, out, x.numel(), BLOCK=_BLOCK)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        of_x = torch.empty_like(x)
        _gradient[(triton.cdiv(x.numel(), _BLOCK),)](x, of_out.contiguous(), of_x, x.numel(), BLOCK=_BLOCK)
        return of_x


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)² of a tensor of any shape, computed in float32 and rounded once to the dtype of x."""
    out: Tensor = _SquaredReLU.apply(x)
    return out
