"""Part of kernels: one token of a short convolution, whose earlier inputs are kept channel by channel.

A kernel first calls `convolved` for all channels that it needs, then has a barrier, then calls `shifted`. Several
threads may hold the same channel, and none may shift what another one still has to read.
"""

import triton
import triton.language as tl


@triton.jit
def convolved(x, held, weight, bias, channels, mask, TAPS: tl.constexpr, BIAS: tl.constexpr):
    """silu(convolution) of a token at `channels`.

    x: the token's inputs, at channel 0.
    held: its earlier inputs [C, TAPS - 1], the oldest first.
    weight: [C, TAPS].
    bias: [C], with BIAS.
    """
    last = tl.load(weight + channels * TAPS + TAPS - 1, mask=mask, other=0.0).to(tl.float32)
    total = tl.load(x + channels, mask=mask, other=0.0).to(tl.float32) * last
    if BIAS:
        total += tl.load(bias + channels, mask=mask, other=0.0).to(tl.float32)
    for tap in tl.static_range(TAPS - 1):
        earlier = tl.load(held + channels * (TAPS - 1) + tap, mask=mask, other=0.0).to(tl.float32)
        total += earlier * tl.load(weight + channels * TAPS + tap, mask=mask, other=0.0).to(tl.float32)
    return total * tl.sigmoid(total)


@triton.jit
def shifted(x, held, channels, mask, TAPS: tl.constexpr):
    """Forgets the oldest input at `channels` and keeps the token's."""
    for tap in tl.static_range(1, TAPS - 1):
        earlier = tl.load(held + channels * (TAPS - 1) + tap, mask=mask, other=0.0)
        tl.store(held + channels * (TAPS - 1) + tap - 1, earlier, mask=mask)
    new = tl.load(x + channels, mask=mask, other=0.0)
    tl.store(held + channels * (TAPS - 1) + TAPS - 2, new.to(held.dtype.element_ty), mask=mask)
