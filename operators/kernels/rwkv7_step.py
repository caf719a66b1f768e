"""One token of RWKV-7: a kernel before the projections, which mixes inputs, and one for all that follows them.

The rule is in `library/rwkv7.py`.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor, nn
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.launching import launch_options, starts_early
from operators.kernels.low_rank import down, up, up_weights
from operators.kernels.products import kind_of, normalized

INPUTS = 6  # of the projections to r, decay, k, v, a and gate
_INPUTS_POWER = 8
_NUMBERS_A_THREAD = 64  # of the state, in registers; two weights are as large as one number
MOST_STATE = 128 * 128  # numbers that one program can hold
MOST_UP_WEIGHTS = 128 * 768  # of the projections from low ranks, which a program holds beside its state


@triton.jit
def _mix(
    x, shift, mix, out, norm_weight, norm_bias, rows, width, eps,
    INPUTS: tl.constexpr, INPUTS_POWER: tl.constexpr, BLOCK: tl.constexpr, NORM: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    row, columns, places = (
        tl.program_id(0).to(tl.int64),
        tl.arange(0, BLOCK),
        tl.arange(0, INPUTS_POWER)[:, None],
    )
    inside = columns < width
    mask = (places < INPUTS) & inside[None, :]
    shares = tl.load(mix + places * width + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    scale = tl.load(norm_weight + columns, mask=inside, other=0.0).to(tl.float32)
    before = tl.load(shift + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()

    a = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    token = normalized(a, columns, scale, norm_bias, width, eps, NORM).to(shift.dtype.element_ty)
    a = token.to(tl.float32)
    mixed = a[None, :] + (before - a)[None, :] * shares
    tl.store(out + (places * rows + row) * width + columns[None, :], mixed.to(out.dtype.element_ty), mask)
    tl.debug_barrier()  # all threads have read what is overwritten here
    tl.store(shift + row * width + columns, token, mask=inside)


@triton.jit
def _step(
    projected, recurrent, decay_up, decay_bias, a_up, a_bias, gate_up, k_k, k_a, r_k, norm_weight, norm_bias,
    out, heads, width, eps, strongest,
    SIZE: tl.constexpr, POWER: tl.constexpr, DECAY_RANK: tl.constexpr, DECAY_POWER: tl.constexpr,
    A_RANK: tl.constexpr, A_POWER: tl.constexpr, GATE_RANK: tl.constexpr, GATE_POWER: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    keys, values = tl.arange(0, POWER), tl.arange(0, POWER)
    of_key, of_value = keys < SIZE, values < SIZE
    tile = of_key[:, None] & of_value[None, :]
    key_at, value_at, inner = head * SIZE + keys, head * SIZE + values, heads * SIZE
    of_decay = up_weights(decay_up, key_at, of_key, DECAY_RANK, DECAY_POWER)
    of_rate = up_weights(a_up, key_at, of_key, A_RANK, A_POWER)
    of_gate = up_weights(gate_up, value_at, of_value, GATE_RANK, GATE_POWER)
    bias_of_decay = tl.load(decay_bias + key_at, mask=of_key, other=0.0).to(tl.float32)
    bias_of_rate = tl.load(a_bias + key_at, mask=of_key, other=0.0).to(tl.float32)
    removes = tl.load(k_k + key_at, mask=of_key, other=0.0).to(tl.float32)
    replaces = tl.load(k_a + key_at, mask=of_key, other=0.0).to(tl.float32)
    reads = tl.load(r_k + key_at, mask=of_key, other=0.0).to(tl.float32)
    scale = tl.load(norm_weight + value_at, mask=of_value, other=0.0).to(tl.float32)
    offset = tl.load(norm_bias + value_at, mask=of_value, other=0.0).to(tl.float32)
    # The state comes after these weights: the compiler arranges what meets as the last one is loaded, and the
    # state is what costs most to arrange anew.
    at = recurrent + ((batch * heads + head) * SIZE + keys)[:, None] * SIZE + values[None, :]
    s = tl.load(at, mask=tile, other=0.0)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()

    r_row = projected + batch * width
    decay_row = r_row + inner
    k_row = decay_row + DECAY_RANK
    v_row = k_row + inner
    rate_row = v_row + inner
    r = tl.load(r_row + key_at, mask=of_key, other=0.0).to(tl.float32)
    k = tl.load(k_row + key_at, mask=of_key, other=0.0).to(tl.float32)
    v = tl.load(v_row + value_at, mask=of_value, other=0.0).to(tl.float32)
    low_decay = 2.0 * tl.sigmoid(2.0 * down(decay_row, DECAY_RANK, DECAY_POWER)) - 1.0  # its tanh
    low_rate = down(rate_row, A_RANK, A_POWER)
    low_gate = tl.sigmoid(down(rate_row + A_RANK, GATE_RANK, GATE_POWER))
    decay = tl.exp(-strongest * tl.sigmoid(up(of_decay, low_decay) + bias_of_decay))
    rate = tl.sigmoid(up(of_rate, low_rate) + bias_of_rate)
    # A rank's filling is a half after the sigmoid. Its weights are 0.
    gate = up(of_gate, low_gate)
    removed = k * removes
    removed = removed * tl.rsqrt(tl.maximum(tl.sum(removed * removed, 0), 1e-24))
    k = k + k * (rate - 1.0) * replaces
    z = tl.sum(removed[:, None] * s, 0)
    s = s * decay[:, None] - (rate * removed)[:, None] * z[None, :] + k[:, None] * v[None, :]
    y = tl.sum(r[:, None] * s, 0)
    y = tl.where(of_value, y - tl.sum(y, 0) / SIZE, 0.0)
    y = y * tl.rsqrt(tl.sum(y * y, 0) / SIZE + eps) * scale + offset
    y = (y + tl.sum(r * k * reads, 0) * v) * gate
    tl.store(out + batch * inner + value_at, y.to(out.dtype.element_ty), mask=of_value)
    tl.debug_barrier()  # all threads have read what is overwritten here
    tl.store(at, s, mask=tile)


def mixed_inputs(x: Tensor, shift: Tensor, *, mix: Tensor, norm: nn.Module) -> Tensor:
    """The inputs of the projections [6, B, W]: a token and the one before, mixed in each channel.

    x: [B, W], contiguous.
    shift: the token before, normalized [B, W]; changed in place to the one here.
    mix: shares of the token before [6, W].
    norm: an `RMSNorm` or `LayerNorm` over W that x passes first.
    """
    rows, width = x.shape
    out = x.new_empty(mix.shape[0], rows, width)
    kind, norms, block = kind_of(norm), _any(norm), triton.next_power_of_2(width)
    _mix[(rows,)](
        x,
        shift,
        mix,
        out,
        norms.weight,
        norms.bias if kind == "layernorm" else x,
        rows,
        width,
        norms.eps,
        INPUTS=INPUTS,
        INPUTS_POWER=_INPUTS_POWER,
        BLOCK=block,
        NORM=kind,
        EARLY=starts_early(x.device),
        **launch_options(x.device, 8 if block < 8192 else 16),
    )
    return out
