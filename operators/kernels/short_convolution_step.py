"""One token of a short convolution of each channel by itself, in a kernel of its own.

The one before Mamba's state space has a bias and SiLU. LFM2's has a gate before and another one after.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.convolution_step import convolved, held_inputs, keep
from operators.kernels.launching import launch_options, starts_early

_BLOCK = 128  # channels of a program: one for each of its threads


@triton.jit
def _step(
    projected, conv, conv_weight, conv_bias, out, channels, width,
    TAPS: tl.constexpr, GATED: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    batch, own = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = own < channels
    conv += batch * channels * (TAPS - 1)
    second, third, part, last = held_inputs(conv, conv_weight, conv_bias, own, mask, TAPS, not GATED)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()

    row = projected + batch * width + own
    new = tl.load(row, mask=mask, other=0.0)
    if GATED:
        after = tl.load(row + channels, mask=mask, other=0.0).to(tl.float32)
        x = tl.load(row + 2 * channels, mask=mask, other=0.0).to(tl.float32)
        new = (new.to(tl.float32) * x).to(conv.dtype.element_ty)
        y = (part + new.to(tl.float32) * last) * after
    else:
        y = convolved(new, part, last)
    tl.store(out + batch * channels + own, y.to(out.dtype.element_ty), mask=mask)
    tl.debug_barrier()  # all threads have read what is overwritten here
    keep(conv, second, third, new, own, mask, TAPS)


def short_convolution_step(
    projected: Tensor, conv: Tensor, *, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """With a bias silu(convolution(x) + bias), else c ⊙ convolution(b ⊙ x) -> [B, C].

    projected: b, c and x side by side [B, 3C]; with a bias x, and whatever follows [B, at least C].
    conv: earlier inputs of the convolution [B, C, taps - 1], changed in place.
    weight: [C, taps].
    bias: [C].
    """
    batch, channels, kept = conv.shape
    out = projected.new_empty(batch, channels)
    _step[(batch, triton.cdiv(channels, _BLOCK))](
        projected,
        conv,
        weight,
        weight if bias is None else bias,
        out,
        channels,
        projected.shape[1],
        TAPS=kept + 1,
        GATED=bias is None,
        BLOCK=_BLOCK,
        EARLY=starts_early(projected.device),
        **launch_options(projected.device, _BLOCK // 32),
    )
    return out
