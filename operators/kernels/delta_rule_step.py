"""One token of the delta rule: convolution, decay, state, normalization of heads and gate in one kernel.

DeltaNet has neither decay nor gate, Gated DeltaNet has both. The recurrence is in `layers/delta_rule.py`.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.convolution_step import convolved, held_inputs, keep
from operators.kernels.launching import launch_options, starts_early
from operators.layers.normalization import RMSNorm

_NUMBERS_A_THREAD = 32  # of the state, in registers
MOST_STATE = 128 * 256  # numbers that one program can hold


@triton.jit
def _step(
    projected, recurrent, conv, conv_weight, A_log, dt_bias, norm_weight, out, heads, width, eps, scale,
    KEY: tl.constexpr, VALUE: tl.constexpr, TAPS: tl.constexpr, KEY_POWER: tl.constexpr,
    VALUE_POWER: tl.constexpr, DECAYS: tl.constexpr, NEGATIVE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    keys, values = tl.arange(0, KEY_POWER), tl.arange(0, VALUE_POWER)
    of_key, of_value = keys < KEY, values < VALUE
    tile = of_key[:, None] & of_value[None, :]
    at = recurrent + ((batch * heads + head) * KEY + keys)[:, None] * VALUE + values[None, :]
    s = tl.load(at, mask=tile, other=0.0)
    norm = tl.load(norm_weight + values, mask=of_value, other=0.0).to(tl.float32)
    channels = heads * (2 * KEY + VALUE)
    conv += batch * channels * (TAPS - 1)
    q_channels, k_channels = head * KEY + keys, (heads + head) * KEY + keys
    v_channels = 2 * heads * KEY + head * VALUE + values
    q_second, q_third, q_part, q_last = held_inputs(
        conv, conv_weight, conv_weight, q_channels, of_key, TAPS, False
    )
    k_second, k_third, k_part, k_last = held_inputs(
        conv, conv_weight, conv_weight, k_channels, of_key, TAPS, False
    )
    v_second, v_third, v_part, v_last = held_inputs(
        conv, conv_weight, conv_weight, v_channels, of_value, TAPS, False
    )
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()

    row = projected + batch * width
    q_new = tl.load(row + q_channels, mask=of_key, other=0.0)
    k_new = tl.load(row + k_channels, mask=of_key, other=0.0)
    v_new = tl.load(row + v_channels, mask=of_value, other=0.0)
    q, k, v = convolved(q_new, q_part, q_last), convolved(k_new, k_part, k_last), convolved(v_new, v_part, v_last)
    q = q * tl.rsqrt(tl.sum(q * q, 0) + 1e-6) * scale
    k = k * tl.rsqrt(tl.sum(k * k, 0) + 1e-6)
    after = row + channels  # where the decay's input lies, if there is one, then beta, then the gate
    if DECAYS:
        step = tl.load(after + head).to(tl.float32) + tl.load(dt_bias + head).to(tl.float32)
        step = tl.where(step > 20.0, step, tl.log(1.0 + tl.exp(step)))  # softplus
        s = s * tl.exp(-tl.exp(tl.load(A_log + head).to(tl.float32)) * step)
        after += heads
    beta = tl.sigmoid(tl.load(after + head).to(tl.float32))
    if NEGATIVE:
        beta = beta * 2.0
    correction = beta * (v - tl.sum(k[:, None] * s, 0))
    s += k[:, None] * correction[None, :]
    y = tl.sum(q[:, None] * s, 0).to(out.dtype.element_ty).to(tl.float32)
    y = y * tl.rsqrt(tl.sum(y * y, 0) / VALUE + eps) * norm
    if DECAYS:
        gate = tl.load(after + heads + head * VALUE + values, mask=of_value, other=0.0).to(tl.float32)
        y = y * gate * tl.sigmoid(gate)
    tl.store(out + (batch * heads + head) * VALUE + values, y.to(out.dtype.element_ty), mask=of_value)
    tl.debug_barrier()  # all threads have read what is overwritten here
    tl.store(at, s, mask=tile)
    keep(conv, q_second, q_third, q_new, q_channels, of_key, TAPS)
    keep(conv, k_second, k_third, k_new, k_channels, of_key, TAPS)
    keep(conv, v_second, v_third, v_new, v_channels, of_value, TAPS)


def delta_rule_step(
    projected: Tensor,
    state: dict[str, Tensor],
    *,
    conv_weight: Tensor,
    norm: RMSNorm,
    decay: tuple[Tensor, Tensor] | None = None,
    negative: bool = False,
) -> Tensor:
    """The heads' outputs, normalized and gated -> [B, H·V].

    projected: q, k and v side by side [B, C] with C = H·(2K + V) channels; then with `decay` its input
        [B, H]; then beta before its sigmoid [B, H]; then with `decay` the gate [B, H·V].
    state: `recurrent` [B, H, K, V] float32 and `conv` [B, C, taps - 1], changed in place.
    conv_weight: [C, taps].
    norm: over the values of a head.
    decay: A_log and dt_bias [H]; None for no decay and no gate.
    negative: whether beta is doubled.
    """
    batch, heads, key, value = state["recurrent"].shape
    out = projected.new_empty(batch, heads * value)
    key_power, value_power = triton.next_power_of_2(key), triton.next_power_of_2(value)
    warps = max(1, min(16, key_power * value_power // (32 * _NUMBERS_A_THREAD)))
    A_log, dt_bias = decay or (projected, projected)
    _step[(batch * heads,)](
        projected,
        state["recurrent"],
        state["conv"],
        conv_weight,
        A_log,
        dt_bias,
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
        VALUE_POWER=value_power,
        DECAYS=decay is not None,
        NEGATIVE=negative,
        EARLY=starts_early(projected.device),
        **launch_options(projected.device, warps),
    )
    return out
