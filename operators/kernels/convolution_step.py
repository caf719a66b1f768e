"""Part of kernels: one token of a short convolution, whose earlier inputs are kept channel by channel.

Several threads may hold the same channel. So there must be a barrier between `held_inputs` and `keep`: none may
overwrite what another one still has to read.
"""

import triton
import triton.language as tl


@triton.jit
def held_inputs(held, weight, bias, channels, mask, TAPS: tl.constexpr, POWER: tl.constexpr, BIAS: tl.constexpr):
    """The earlier inputs of `channels` [N, POWER], their part of the convolution [N], and the last weight [N].

    held: earlier inputs [C, TAPS - 1], the oldest first.
    weight: [C, TAPS].
    bias: [C], with BIAS.
    POWER: the power of 2 that TAPS fits into.
    """
    taps = tl.arange(0, POWER)
    tile = mask[:, None] & (taps < TAPS - 1)[None, :]
    earlier = tl.load(held + channels[:, None] * (TAPS - 1) + taps[None, :], mask=tile, other=0.0)
    factors = tl.load(weight + channels[:, None] * TAPS + taps[None, :], mask=tile, other=0.0)
    part = tl.sum(earlier.to(tl.float32) * factors.to(tl.float32), 1)
    if BIAS:
        part += tl.load(bias + channels, mask=mask, other=0.0).to(tl.float32)
    return earlier, part, tl.load(weight + channels * TAPS + TAPS - 1, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def convolved(new, part, last):
    """silu(convolution) of a token's inputs `new` [N]."""
    total = part + new.to(tl.float32) * last
    return total * tl.sigmoid(total)


@triton.jit
def keep(held, earlier, new, channels, mask, TAPS: tl.constexpr, POWER: tl.constexpr):
    """Forgets the oldest input of each channel and keeps the token's."""
    taps = tl.arange(0, POWER)
    tile = mask[:, None] & ((taps > 0) & (taps < TAPS - 1))[None, :]
    tl.store(held + channels[:, None] * (TAPS - 1) + taps[None, :] - 1, earlier, mask=tile)
    tl.store(held + channels * (TAPS - 1) + TAPS - 2, new.to(held.dtype.element_ty), mask=mask)
