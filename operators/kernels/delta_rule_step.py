"""One token of the delta rule: convolution, decay, state, normalization of heads and gate in one kernel.

DeltaNet has neither decay nor gate. Gated DeltaNet has both, with a decay for each head. KDA has them from
projections of low rank, with a decay for each channel of a key. The recurrences are in `layers/delta_rule.py`
and `library/kda.py`.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.convolution_step import convolved, held_inputs, keep
from operators.kernels.launching import launch_options, starts_early
from operators.kernels.low_rank import down, up, up_weights
from operators.kernels.softplus import softplus
from operators.layers.normalization import RMSNorm

_NUMBERS_A_THREAD = 64  # of the state, in registers
MOST_STATE = 128 * 256  # numbers that one program can hold
MOST_UP_WEIGHTS = 128 * 256  # of KDA's projections from a low rank, which a program holds beside its state


@triton.jit
def _corrected(s, q, k, v, beta):
    """The state after the delta rule, and its read with q."""
    correction = beta * (v - tl.sum(k[:, None] * s, 0))
    s += k[:, None] * correction[None, :]
    return s, tl.sum(q[:, None] * s, 0)


@triton.jit
def _step(
    projected, recurrent, conv, conv_weight, A_log, dt_bias, decay_up, gate_up, norm_weight, out,
    heads, width, eps, scale,
    KEY: tl.constexpr, VALUE: tl.constexpr, TAPS: tl.constexpr, KEY_POWER: tl.constexpr,
    HALF: tl.constexpr, DECAYS: tl.constexpr, RANK: tl.constexpr, RANK_POWER: tl.constexpr,
    NEGATIVE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    # The values are in two halves, so that what is computed with the state fits into the registers beside it.
    keys, low, high = tl.arange(0, KEY_POWER), tl.arange(0, HALF), HALF + tl.arange(0, HALF)
    of_key, of_low, of_high = keys < KEY, low < VALUE, high < VALUE
    v_of_head = head * VALUE
    if DECAYS == "channel":
        bias = tl.load(dt_bias + head * KEY + keys, mask=of_key, other=0.0).to(tl.float32)
        of_decay = up_weights(decay_up, head * KEY + keys, of_key, RANK, RANK_POWER)
        of_gate_low = up_weights(gate_up, v_of_head + low, of_low, RANK, RANK_POWER)
        of_gate_high = up_weights(gate_up, v_of_head + high, of_high, RANK, RANK_POWER)
    # The state is loaded after these weights. The compiler gives values that meet the layout of the last one
    # loaded, and the state is the most expensive one to lay out anew.
    rows = recurrent + ((batch * heads + head) * KEY + keys)[:, None] * VALUE
    s_low = tl.load(rows + low[None, :], mask=of_key[:, None] & of_low[None, :], other=0.0)
    s_high = tl.load(rows + high[None, :], mask=of_key[:, None] & of_high[None, :], other=0.0)
    norm_low = tl.load(norm_weight + low, mask=of_low, other=0.0).to(tl.float32)
    norm_high = tl.load(norm_weight + high, mask=of_high, other=0.0).to(tl.float32)
    channels = heads * (2 * KEY + VALUE)
    conv += batch * channels * (TAPS - 1)
    q_at, k_at, v_at = head * KEY + keys, (heads + head) * KEY + keys, 2 * heads * KEY + v_of_head
    q2, q3, q_part, q_last = held_inputs(conv, conv_weight, conv_weight, q_at, of_key, TAPS, False)
    k2, k3, k_part, k_last = held_inputs(conv, conv_weight, conv_weight, k_at, of_key, TAPS, False)
    l2, l3, l_part, l_last = held_inputs(conv, conv_weight, conv_weight, v_at + low, of_low, TAPS, False)
    h2, h3, h_part, h_last = held_inputs(conv, conv_weight, conv_weight, v_at + high, of_high, TAPS, False)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()

    row = projected + batch * width
    q_new = tl.load(row + q_at, mask=of_key, other=0.0)
    k_new = tl.load(row + k_at, mask=of_key, other=0.0)
    l_new = tl.load(row + v_at + low, mask=of_low, other=0.0)
    h_new = tl.load(row + v_at + high, mask=of_high, other=0.0)
    q, k = convolved(q_new, q_part, q_last), convolved(k_new, k_part, k_last)
    q = q * tl.rsqrt(tl.sum(q * q, 0) + 1e-6) * scale
    k = k * tl.rsqrt(tl.sum(k * k, 0) + 1e-6)
    after = row + channels  # where the input of a decay for each head lies, if there is one, and then beta
    if DECAYS == "head":
        step = tl.load(after + head).to(tl.float32) + tl.load(dt_bias + head).to(tl.float32)
        decay = tl.exp(-tl.exp(tl.load(A_log + head).to(tl.float32)) * softplus(step))
        s_low, s_high = s_low * decay, s_high * decay
        after += heads
    beta = tl.sigmoid(tl.load(after + head).to(tl.float32))
    after += heads  # where the gate lies, or the low ranks of decay and gate
    if DECAYS == "channel":
        step = up(of_decay, down(after, RANK, RANK_POWER)) + bias
        decay = tl.exp(-tl.exp(tl.load(A_log + head).to(tl.float32)) * softplus(step))
        s_low, s_high = s_low * decay[:, None], s_high * decay[:, None]
    if NEGATIVE:
        beta = beta * 2.0
    s_low, y_low = _corrected(s_low, q, k, convolved(l_new, l_part, l_last), beta)
    s_high, y_high = _corrected(s_high, q, k, convolved(h_new, h_part, h_last), beta)
    y_low = y_low.to(out.dtype.element_ty).to(tl.float32)
    y_high = y_high.to(out.dtype.element_ty).to(tl.float32)
    factor = tl.rsqrt((tl.sum(y_low * y_low, 0) + tl.sum(y_high * y_high, 0)) / VALUE + eps)
    y_low, y_high = y_low * factor * norm_low, y_high * factor * norm_high
    if DECAYS == "head":
        g_low = tl.load(after + v_of_head + low, mask=of_low, other=0.0).to(tl.float32)
        g_high = tl.load(after + v_of_head + high, mask=of_high, other=0.0).to(tl.float32)
        y_low, y_high = y_low * g_low * tl.sigmoid(g_low), y_high * g_high * tl.sigmoid(g_high)
    if DECAYS == "channel":
        rank = down(after + RANK, RANK, RANK_POWER)
        y_low, y_high = y_low * tl.sigmoid(up(of_gate_low, rank)), y_high * tl.sigmoid(up(of_gate_high, rank))
    results = out + (batch * heads + head) * VALUE
    tl.store(results + low, y_low.to(out.dtype.element_ty), mask=of_low)
    tl.store(results + high, y_high.to(out.dtype.element_ty), mask=of_high)
    tl.debug_barrier()  # all threads have read what is overwritten here
    tl.store(rows + low[None, :], s_low, mask=of_key[:, None] & of_low[None, :])
    tl.store(rows + high[None, :], s_high, mask=of_key[:, None] & of_high[None, :])
    keep(conv, q2, q3, q_new, q_at, of_key, TAPS)
    keep(conv, k2, k3, k_new, k_at, of_key, TAPS)
    keep(conv, l2, l3, l_new, v_at + low, of_low, TAPS)
    keep(conv, h2, h3, h_new, v_at + high, of_high, TAPS)


def delta_rule_step(
    projected: Tensor,
    state: dict[str, Tensor],
    *,
    conv_weight: Tensor,
    norm: RMSNorm,
    decay: tuple[Tensor, Tensor] | None = None,
    low_rank: tuple[Tensor, Tensor] | None = None,
    negative: bool = False,
) -> Tensor:
    """The heads' outputs, normalized and gated -> [B, H·V].

    projected: q, k and v side by side [B, C] with C = H·(2K + V) channels; then with `decay` alone its input
        [B, H]; then beta before its sigmoid [B, H]; then with `decay` the gate [B, H·V], or with `low_rank`
        the inputs of its two projections [B, 2R].
    state: `recurrent` [B, H, K, V] float32 and `conv` [B, C, taps - 1], changed in place.
    conv_weight: [C, taps].
    norm: over the values of a head.
    decay: A_log [H], and dt_bias [H], or [H·K] with `low_rank`; None for no decay and no gate.
    low_rank: the projections to the decay of each channel of a key [H·K, R], and to the gate before its
        sigmoid [H·V, R].
    negative: whether beta is doubled.
    """
    batch, heads, key, value = state["recurrent"].shape
    out = projected.new_empty(batch, heads * value)
    key_power, value_power = triton.next_power_of_2(key), triton.next_power_of_2(value)
    numbers = key_power * value_power * (1 if low_rank is None else 2)  # the weights need registers as well
    warps = max(1, min(16, numbers // (32 * _NUMBERS_A_THREAD)))
    A_log, dt_bias = decay or (projected, projected)
    decay_up, gate_up = low_rank or (projected, projected)
    rank = 1 if low_rank is None else decay_up.shape[1]
    _step[(batch * heads,)](
        projected,
        state["recurrent"],
        state["conv"],
        conv_weight,
        A_log,
        dt_bias,
        decay_up,
        gate_up,
        norm.weight,
        out,
        heads,
        projected.shape[1],
        norm.eps,
        key**-0.5,
        KEY=key,
        VALUE=value,
        TAPS=conv_weight.shape[1],
        KEY_POWER=key_power,
        HALF=max(1, value_power // 2),
        DECAYS="none" if decay is None else "head" if low_rank is None else "channel",
        RANK=rank,
        RANK_POWER=triton.next_power_of_2(rank),
        NEGATIVE=negative,
        EARLY=starts_early(projected.device),
        **launch_options(projected.device, warps),
    )
    return out
