"""One token of Mamba2: convolution, state and gate in one kernel.

It leaves the normalization over all channels to the output projection.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.convolution_step import convolved, held_inputs, keep
from operators.kernels.launching import launch_options, starts_early
from operators.kernels.softplus import softplus

# Channels of a head that a program takes: 32 with a state of 128 numbers are 32 registers of 128 threads.
_BLOCK = 32


@triton.jit
def _step(
    projected, recurrent, conv, conv_weight, conv_bias, A_log, D, dt_bias, out, arrived,
    heads, groups, sharing,
    SIZE: tl.constexpr, STATE: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr,
    STATE_POWER: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    group = head // (heads // groups)
    own = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    states = tl.arange(0, STATE_POWER)
    of_head, of_state = own < SIZE, states < STATE
    inner = heads * SIZE
    channels = inner + 2 * groups * STATE
    tile = of_head[:, None] & of_state[None, :]
    at = recurrent + ((batch * heads + head) * SIZE + own)[:, None] * STATE + states[None, :]
    h = tl.load(at, mask=tile, other=0.0)
    a = -tl.exp(tl.load(A_log + head).to(tl.float32))
    skip, bias = tl.load(D + head).to(tl.float32), tl.load(dt_bias + head).to(tl.float32)
    x_channels, b_channels = head * SIZE + own, inner + group * STATE + states
    c_channels = b_channels + groups * STATE
    conv += batch * channels * (TAPS - 1)
    x_second, x_third, x_part, x_last = held_inputs(
        conv, conv_weight, conv_bias, x_channels, of_head, TAPS, True
    )
    b_second, b_third, b_part, b_last = held_inputs(
        conv, conv_weight, conv_bias, b_channels, of_state, TAPS, True
    )
    c_second, c_third, c_part, c_last = held_inputs(
        conv, conv_weight, conv_bias, c_channels, of_state, TAPS, True
    )
    # All programs of a group read what is held of B and C. The last one to have read it changes it.
    tl.debug_barrier()
    is_last = tl.atomic_add(arrived + batch * groups + group, 1, sem="acq_rel") == sharing - 1
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()

    row = projected + batch * (inner + channels + heads)
    z = tl.load(row + x_channels, mask=of_head, other=0.0).to(tl.float32)
    dt = tl.load(row + inner + channels + head).to(tl.float32) + bias
    x_new = tl.load(row + inner + x_channels, mask=of_head, other=0.0)
    b_new = tl.load(row + inner + b_channels, mask=of_state, other=0.0)
    c_new = tl.load(row + inner + c_channels, mask=of_state, other=0.0)
    dt = softplus(dt)
    x, b, c = (
        convolved(x_new, x_part, x_last),
        convolved(b_new, b_part, b_last),
        convolved(c_new, c_part, c_last),
    )
    h = h * tl.exp(dt * a) + (dt * x)[:, None] * b[None, :]
    y = tl.sum(h * c[None, :], 1) + skip * x
    y = y * z * tl.sigmoid(z)
    tl.store(out + batch * inner + x_channels, y.to(out.dtype.element_ty), mask=of_head)
    tl.store(at, h, mask=tile)
    keep(conv, x_second, x_third, x_new, x_channels, of_head, TAPS)
    if is_last:
        keep(conv, b_second, b_third, b_new, b_channels, of_state, TAPS)
        keep(conv, c_second, c_third, c_new, c_channels, of_state, TAPS)
        tl.store(arrived + batch * groups + group, 0)


def mamba2_step(
    projected: Tensor,
    state: dict[str, Tensor],
    *,
    conv_weight: Tensor,
    conv_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    groups: int,
) -> Tensor:
    """y · silu(z) before the normalization -> [B, H·P].

    projected: [B, H·P + C + H]: z, the convolution's input with C = H·P + 2·G·N channels, and dt.
    state: `recurrent` [B, H, P, N] float32 and `conv` [B, C, K - 1], changed in place, and `arrived` [B, G]
        int32: zeros, which the kernel counts with and leaves as zeros.
    conv_weight: [C, K].
    conv_bias: [C].
    A_log, D, dt_bias: [H].
    groups: G.
    """
    batch, heads, size, states = state["recurrent"].shape
    out = projected.new_empty(batch, heads * size)
    block = min(_BLOCK, triton.next_power_of_2(size))
    pieces = triton.cdiv(size, block)
    _step[(batch * heads, pieces)](
        projected,
        state["recurrent"],
        state["conv"],
        conv_weight,
        conv_bias,
        A_log,
        D,
        dt_bias,
        out,
        state["arrived"],
        heads,
        groups,
        heads // groups * pieces,
        SIZE=size,
        STATE=states,
        TAPS=conv_weight.shape[1],
        BLOCK=block,
        STATE_POWER=triton.next_power_of_2(states),
        EARLY=starts_early(projected.device),
        **launch_options(projected.device, 4),
    )
    return out
