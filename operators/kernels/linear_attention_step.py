"""One token of linear attention: decay, state, normalization of heads and gate in one kernel.

GLA has a decay for each channel of a key, from a projection of low rank. RetNet has one for each head, which
never changes, and rotates queries and keys.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.launching import launch_options, starts_early
from operators.kernels.low_rank import down, up, up_weights
from operators.kernels.softplus import softplus
from operators.layers.normalization import RMSNorm

_NUMBERS_A_THREAD = 64  # of the state, in registers
MOST_STATE = 128 * 256  # numbers that one program can hold


@triton.jit
def _turned(row, keys, of_key, cosine, sine, KEY: tl.constexpr):
    """A query or key that begins at `row`, with its halves rotated; `sine` is negative in the first one."""
    own = tl.load(row + keys, mask=of_key, other=0.0).to(tl.float32)
    other = tl.load(row + (keys + KEY // 2) % KEY, mask=of_key, other=0.0).to(tl.float32)
    return own * cosine + other * sine


@triton.jit
def _step(
    projected, recurrent, position, frequencies, decay_up, decay_bias, norm_weight, out,
    heads, width, eps, scale, temperature,
    KEY: tl.constexpr, VALUE: tl.constexpr, KEY_POWER: tl.constexpr, VALUE_POWER: tl.constexpr,
    RANK: tl.constexpr, RANK_POWER: tl.constexpr, ROTATES: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    keys, values = tl.arange(0, KEY_POWER), tl.arange(0, VALUE_POWER)
    of_key, of_value = keys < KEY, values < VALUE
    tile = of_key[:, None] & of_value[None, :]
    norm = tl.load(norm_weight + values, mask=of_value, other=0.0).to(tl.float32)
    of_head = head * KEY + keys
    if ROTATES:
        place = tl.load(position + batch).to(tl.float32)
        angle = place * tl.load(frequencies + keys % (KEY // 2), mask=of_key, other=0.0)
        cosine, sine = tl.cos(angle), tl.sin(angle)
        sine = tl.where(keys < KEY // 2, -sine, sine)
    else:
        weights = up_weights(decay_up, of_head, of_key, RANK, RANK_POWER)
        bias = tl.load(decay_bias + of_head, mask=of_key, other=0.0).to(tl.float32)
    # The state is loaded after the weights. The compiler gives values that meet the layout of the last one
    # loaded, and the state is the most expensive one to lay out anew.
    at = recurrent + ((batch * heads + head) * KEY + keys)[:, None] * VALUE + values[None, :]
    s = tl.load(at, mask=tile, other=0.0)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()

    q_row = projected + batch * width
    k_row = q_row + heads * KEY
    v_row = k_row + heads * KEY
    gate_row = v_row + heads * VALUE
    v = tl.load(v_row + head * VALUE + values, mask=of_value, other=0.0).to(tl.float32)
    gate = tl.load(gate_row + head * VALUE + values, mask=of_value, other=0.0).to(tl.float32)
    if ROTATES:
        q = _turned(q_row + head * KEY, keys, of_key, cosine, sine, KEY)
        k = _turned(k_row + head * KEY, keys, of_key, cosine, sine, KEY)
        s = s * (1.0 - tl.exp2(-5.0 - head.to(tl.float32)))
    else:
        q = tl.load(q_row + of_head, mask=of_key, other=0.0).to(tl.float32)
        k = tl.load(k_row + of_head, mask=of_key, other=0.0).to(tl.float32)
        raw = up(weights, down(gate_row + heads * VALUE, RANK, RANK_POWER)) + bias
        s = s * tl.exp(-softplus(-raw) / temperature)[:, None]  # -softplus(-x) is log(sigmoid(x))
    s += k[:, None] * v[None, :]
    y = tl.sum((q * scale)[:, None] * s, 0).to(out.dtype.element_ty).to(tl.float32)
    y = y * tl.rsqrt(tl.sum(y * y, 0) / VALUE + eps) * norm * gate * tl.sigmoid(gate)
    result = out + (batch * heads + head) * VALUE + values
    tl.store(result, y.to(out.dtype.element_ty), mask=of_value)
    tl.debug_barrier()  # all threads have read what is overwritten here
    tl.store(at, s, mask=tile)


def linear_attention_step(
    projected: Tensor,
    state: dict[str, Tensor],
    *,
    norm: RMSNorm,
    decay: tuple[Tensor, Tensor, float] | None = None,
    rotation: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The heads' outputs, normalized and gated -> [B, H·V].

    projected: q, k, v and the gate side by side [B, H·(2K + 2V)]; then with `decay` its input of low rank
        [B, R].
    state: `recurrent` [B, H, K, V] float32, changed in place.
    norm: over the values of a head.
    decay: of GLA: the projection from the rank [H·K, R], its bias [H·K], and what log decays are divided by.
    rotation: of RetNet, which has a decay of its own: position [B] int64, and radians per position [K / 2].
    """
    batch, heads, key, value = state["recurrent"].shape
    out = projected.new_empty(batch, heads * value)
    key_power, value_power = triton.next_power_of_2(key), triton.next_power_of_2(value)
    warps = max(1, min(16, key_power * value_power // (32 * _NUMBERS_A_THREAD)))
    decay_up, decay_bias, temperature = decay or (projected, projected, 1.0)
    position, frequencies = rotation or (projected, projected)
    rank = 1 if decay is None else decay_up.shape[1]
    _step[(batch * heads,)](
        projected,
        state["recurrent"],
        position,
        frequencies,
        decay_up,
        decay_bias,
        norm.weight,
        out,
        heads,
        projected.shape[1],
        norm.eps,
        key**-0.5,
        float(temperature),
        KEY=key,
        VALUE=value,
        KEY_POWER=key_power,
        VALUE_POWER=value_power,
        RANK=rank,
        RANK_POWER=triton.next_power_of_2(rank),
        ROTATES=rotation is not None,
        EARLY=starts_early(projected.device),
        **launch_options(projected.device, warps),
    )
    return out
