"""Part of kernels: one token of a short convolution, whose earlier inputs are kept channel by channel.

Several threads may hold the same channel. So there must be a barrier between `held_inputs` and `keep`: none
may overwrite what another one still has to read.
"""

import triton
import triton.language as tl

MOST_TAPS = 4


@triton.jit
def held_inputs(held, weight, bias, channels, mask, TAPS: tl.constexpr, BIAS: tl.constexpr):
    """What a step needs of `channels` besides its new input.

    Returns the second and third oldest inputs, the sum that all earlier inputs and the bias contribute to the
    convolution, and the weight of the new input.

    held: earlier inputs [C, TAPS - 1], the oldest first, with TAPS from 2 to 4.
    weight: [C, TAPS].
    bias: [C], with BIAS.
    """
    earlier, factors = held + channels * (TAPS - 1), weight + channels * TAPS
    second = tl.load(earlier, mask=mask, other=0.0)
    part = second.to(tl.float32) * tl.load(factors, mask=mask, other=0.0).to(tl.float32)
    third = second
    if TAPS > 2:
        second = tl.load(earlier + 1, mask=mask, other=0.0)
        part += second.to(tl.float32) * tl.load(factors + 1, mask=mask, other=0.0).to(tl.float32)
    if TAPS > 3:
        third = tl.load(earlier + 2, mask=mask, other=0.0)
        part += third.to(tl.float32) * tl.load(factors + 2, mask=mask, other=0.0).to(tl.float32)
    if BIAS:
        part += tl.load(bias + channels, mask=mask, other=0.0).to(tl.float32)
    return second, third, part, tl.load(factors + TAPS - 1, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def convolved(new, part, last):
    """silu(convolution) of a token's inputs `new` [N]."""
    total = part + new.to(tl.float32) * last
    return total * tl.sigmoid(total)


@triton.jit
def keep(held, second, third, new, channels, mask, TAPS: tl.constexpr):
    """Forgets the oldest input of each channel and keeps the token's."""
    earlier = held + channels * (TAPS - 1)
    if TAPS > 2:
        tl.store(earlier, second, mask=mask)
    if TAPS > 3:
        tl.store(earlier + 1, third, mask=mask)
    tl.store(earlier + TAPS - 2, new.to(held.dtype.element_ty), mask=mask)
