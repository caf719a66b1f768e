"""Part of kernels: the second half of a projection of low rank, for one head or a few channels.

It is small, so the kernel that needs its result reads the weights before its wait and multiplies by itself.
"""

import triton
import triton.language as tl


@triton.jit
def up_weights(up, rows, of_row, RANK: tl.constexpr, RANK_POWER: tl.constexpr):
    """The weights [N, RANK_POWER] of the outputs `rows` [N], of the matrix `up` [all outputs, RANK]."""
    ranks = tl.arange(0, RANK_POWER)
    mask = of_row[:, None] & (ranks < RANK)[None, :]
    return tl.load(up + rows[:, None] * RANK + ranks[None, :], mask=mask, other=0.0)


@triton.jit
def down(row, RANK: tl.constexpr, RANK_POWER: tl.constexpr):
    """What the first half gave [RANK_POWER], which begins at `row`."""
    ranks = tl.arange(0, RANK_POWER)
    return tl.load(row + ranks, mask=ranks < RANK, other=0.0).to(tl.float32)


@triton.jit
def up(weights, low):
    """The second half's outputs [N], of its weights [N, RANK_POWER] and inputs [RANK_POWER]."""
    return tl.sum(weights.to(tl.float32) * low[None, :], 1)
