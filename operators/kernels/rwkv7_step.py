"""One token of RWKV7 from its projections: low ranks, state, normalization of heads, bonus and gate."""

import triton
import triton.language as tl
from torch import Tensor, nn
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.launching import launch_options, starts_early
from operators.kernels.low_rank import down, up, up_weights

# Registers of a thread for the state and the projections from low ranks; two weights share one. A thread has
# 255 registers, or 128 where 16 warps run a program. It computes with the others.
_REGISTERS_A_THREAD = 48
_MOST_WARPS = 16
# Registers of a program. A head of 128 with ranks up to 256 needs so many; some then lie in the cache.
MOST_HELD = 128 * 512


def held(size: int, ranks: tuple[int, ...]) -> int:
    """Registers for the state of a head of this size and its projections from low ranks."""
    power: int = triton.next_power_of_2(size)
    weights: int = power * sum(triton.next_power_of_2(rank) for rank in ranks)
    return power * power + weights // 2


@triton.jit
def _of_channels(values, channels, mask):
    return tl.load(values + channels, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _step(
    projected, recurrent, decay_up, decay_bias, a_up, a_bias, gate_up, k_k, k_a, r_k, norm_weight, norm_bias,
    out, heads, width, eps, strongest,
    SIZE: tl.constexpr, POWER: tl.constexpr, DECAY: tl.constexpr, DECAY_POWER: tl.constexpr,
    A: tl.constexpr, A_POWER: tl.constexpr, GATE: tl.constexpr, GATE_POWER: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    keys, values = tl.arange(0, POWER), tl.arange(0, POWER)
    of_key, of_value = keys < SIZE, values < SIZE
    tile = of_key[:, None] & of_value[None, :]
    key_channels, value_channels = head * SIZE + keys, head * SIZE + values
    of_decay = up_weights(decay_up, key_channels, of_key, DECAY, DECAY_POWER)
    of_a = up_weights(a_up, key_channels, of_key, A, A_POWER)
    of_gate = up_weights(gate_up, value_channels, of_value, GATE, GATE_POWER)
    for_decay, for_a = (
        _of_channels(decay_bias, key_channels, of_key),
        _of_channels(a_bias, key_channels, of_key),
    )
    for_removed, for_key = _of_channels(k_k, key_channels, of_key), _of_channels(k_a, key_channels, of_key)
    for_bonus = _of_channels(r_k, key_channels, of_key)
    scale = _of_channels(norm_weight, value_channels, of_value)
    shift = _of_channels(norm_bias, value_channels, of_value)
    # The state is loaded after the weights, as in `linear_attention_step`.
    at = recurrent + ((batch * heads + head) * SIZE + keys)[:, None] * SIZE + values[None, :]
    s = tl.load(at, mask=tile, other=0.0)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()

    inner = heads * SIZE
    r_row = projected + batch * width
    decay_row = r_row + inner
    k_row = decay_row + DECAY
    v_row = k_row + inner
    a_row = v_row + inner
    gate_row = a_row + A
    r, k = _of_channels(r_row, key_channels, of_key), _of_channels(k_row, key_channels, of_key)
    v = _of_channels(v_row, value_channels, of_value)
    low = 2.0 * tl.sigmoid(2.0 * down(decay_row, DECAY, DECAY_POWER)) - 1.0  # tanh
    decay = tl.exp(-strongest * tl.sigmoid(up(of_decay, low) + for_decay))
    rate = tl.sigmoid(up(of_a, down(a_row, A, A_POWER)) + for_a)
    gate = up(of_gate, tl.sigmoid(down(gate_row, GATE, GATE_POWER)))
    removed = k * for_removed
    removed = removed / tl.maximum(tl.sqrt(tl.sum(removed * removed, 0)), 1e-12)
    k += k * (rate - 1.0) * for_key
    z = -tl.sum(removed[:, None] * s, 0)
    s = s * decay[:, None] + (rate * removed)[:, None] * z[None, :] + k[:, None] * v[None, :]
    y = tl.sum(r[:, None] * s, 0)
    y = tl.where(of_value, y - tl.sum(y, 0) / SIZE, 0.0)
    y = y * tl.rsqrt(tl.sum(y * y, 0) / SIZE + eps) * scale + shift
    y = (y + tl.sum(r * k * for_bonus, 0) * v) * gate
    tl.store(out + batch * inner + value_channels, y.to(out.dtype.element_ty), mask=of_value)
    tl.debug_barrier()  # all threads have read what is overwritten here
    tl.store(at, s, mask=tile)


def rwkv7_step(
    projected: Tensor,
    state: dict[str, Tensor],
    *,
    decay: nn.Linear,
    a: nn.Linear,
    gate: nn.Linear,
    k_k: Tensor,
    k_a: Tensor,
    r_k: Tensor,
    norm: nn.GroupNorm,
    strongest: float,
) -> Tensor:
    """The heads' outputs, normalized, with their bonus and gated -> [B, H·K].

    projected: side by side r [B, H·K], the decay's input of low rank, k and v [B, H·K], and the inputs of `a`
        and the gate.
    state: `recurrent` [B, H, K, K] float32, changed in place.
    decay, a, gate: from their ranks to H·K; the first two have a bias.
    k_k, k_a, r_k: [H·K].
    norm: of each head.
    strongest: that the log decay's sigmoid is multiplied by.
    """
    batch, heads, size, _ = state["recurrent"].shape
    out = projected.new_empty(batch, heads * size)
    ranks = (decay.in_features, a.in_features, gate.in_features)
    powers = [triton.next_power_of_2(rank) for rank in ranks]
    warps = 4
    while warps < _MOST_WARPS and held(size, ranks) > _REGISTERS_A_THREAD * 32 * warps:
        warps *= 2
    _step[(batch * heads,)](
        projected,
        state["recurrent"],
        decay.weight,
        decay.bias,
        a.weight,
        a.bias,
        gate.weight,
        k_k,
        k_a,
        r_k,
        norm.weight,
        norm.bias,
        out,
        heads,
        projected.shape[1],
        norm.eps,
        strongest,
        SIZE=size,
        POWER=triton.next_power_of_2(size),
        DECAY=ranks[0],
        DECAY_POWER=powers[0],
        A=ranks[1],
        A_POWER=powers[1],
        GATE=ranks[2],
        GATE_POWER=powers[2],
        EARLY=starts_early(projected.device),
        **launch_options(projected.device, warps),
    )
    return out
