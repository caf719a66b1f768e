"""One token of Mamba3: normalization and rotation of its keys, state and gate in one kernel.

The rule is in `library/mamba3.py`.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.launching import launch_options, starts_early
from operators.kernels.softplus import softplus
from operators.layers.normalization import RMSNorm

_NUMBERS_A_THREAD = 64  # of the state, in registers
MOST_STATE = 128 * 256  # numbers that one program can hold
_TURN = 6.283185307179586  # 2π


@triton.jit
def _affine(norm_weight, bias, head, states, STATE: tl.constexpr):
    """The factors of the numbers of a normalized query or key, and what is added to them."""
    scale = tl.load(norm_weight + states, mask=states < STATE, other=0.0).to(tl.float32)
    return scale, tl.load(bias + head * STATE + states, mask=states < STATE, other=0.0).to(tl.float32)


@triton.jit
def _turned(
    row, states, pair, scale, bias, pair_scale, pair_bias, cosine, sine, eps, STATE: tl.constexpr
):  # fmt: skip
    """A query or key that begins at `row`, normalized, with its bias, and with each pair rotated.

    `pair` is the other number's place in the pair; `sine` is negative for the first one.
    """
    own = tl.load(row + states, mask=states < STATE, other=0.0).to(tl.float32)
    other = tl.load(row + pair, mask=pair < STATE, other=0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(own * own, 0) / STATE + eps)
    return (own * factor * scale + bias) * cosine + (other * factor * pair_scale + pair_bias) * sine


@triton.jit
def _angle(held, row, dt, pairs, mask, turn):
    """The angles of `pairs` after this token, from 0 to a whole turn."""
    wanted = tl.load(row + pairs, mask=mask, other=0.0).to(tl.float32)
    rate = 2.0 * tl.sigmoid(2.0 * wanted) - 1.0  # tanh
    angle = tl.load(held + pairs, mask=mask, other=0.0) + rate * dt * (turn / 2.0)
    return angle - tl.floor(angle / turn) * turn


@triton.jit
def _step(
    projected, recurrent, angle, key, value, B_weight, C_weight, B_bias, C_bias, dt_bias, D, out,
    heads, groups, width, eps, weakest, turn,
    SIZE: tl.constexpr, STATE: tl.constexpr, ANGLES: tl.constexpr, SIZE_POWER: tl.constexpr,
    STATE_POWER: tl.constexpr, ANGLES_POWER: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    own, states, pairs = tl.arange(0, SIZE_POWER), tl.arange(0, STATE_POWER), tl.arange(0, ANGLES_POWER)
    of_head, of_state, of_pair = own < SIZE, states < STATE, pairs < ANGLES
    place = batch * heads + head
    tile = of_head[:, None] & of_state[None, :]
    angle, key, value = angle + place * ANGLES, key + place * STATE, value + place * SIZE
    pair = states ^ 1  # a number's neighbour, which it turns with
    k_scale, k_bias = _affine(B_weight, B_bias, head, states, STATE)
    k_pair_scale, k_pair_bias = _affine(B_weight, B_bias, head, pair, STATE)
    q_scale, q_bias = _affine(C_weight, C_bias, head, states, STATE)
    q_pair_scale, q_pair_bias = _affine(C_weight, C_bias, head, pair, STATE)
    at = recurrent + (place * SIZE + own)[:, None] * STATE + states[None, :]
    h = tl.load(at, mask=tile, other=0.0)
    key_before = tl.load(key + states, mask=of_state, other=0.0)
    value_before = tl.load(value + own, mask=of_head, other=0.0).to(tl.float32)
    of_step, skip = tl.load(dt_bias + head).to(tl.float32), tl.load(D + head).to(tl.float32)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()

    inner, shared, group = heads * SIZE, groups * STATE, head // (heads // groups) * STATE
    row = projected + batch * width
    k_row = row + 2 * inner
    q_row = k_row + shared
    scalars = q_row + shared
    z = tl.load(row + head * SIZE + own, mask=of_head, other=0.0).to(tl.float32)
    new = tl.load(row + inner + head * SIZE + own, mask=of_head, other=0.0)
    v = new.to(tl.float32)
    dt = softplus(tl.load(scalars + head).to(tl.float32) + of_step)
    rate = -tl.maximum(softplus(tl.load(scalars + heads + head).to(tl.float32)), weakest)
    share = tl.sigmoid(tl.load(scalars + 2 * heads + head).to(tl.float32))
    angles = scalars + 3 * heads
    turned = of_state & (states < 2 * ANGLES)
    at_states = _angle(angle, angles, dt, states // 2, turned, turn)
    cosine = tl.where(turned, tl.cos(at_states), 1.0)
    sine = tl.where(turned, tl.sin(at_states), 0.0)
    sine = tl.where(states % 2 == 0, -sine, sine)
    k_row, q_row = k_row + group, q_row + group
    k = _turned(k_row, states, pair, k_scale, k_bias, k_pair_scale, k_pair_bias, cosine, sine, eps, STATE)
    q = _turned(q_row, states, pair, q_scale, q_bias, q_pair_scale, q_pair_bias, cosine, sine, eps, STATE)
    kept_angle = _angle(angle, angles, dt, pairs, of_pair, turn)

    earlier, decay = dt * (1.0 - share) * value_before, tl.exp(rate * dt)
    h = (h + earlier[:, None] * key_before[None, :]) * decay + (dt * share * v)[:, None] * k[None, :]
    y = (tl.sum(h * q[None, :], 1) + skip * v) * z * tl.sigmoid(z)
    tl.store(out + place * SIZE + own, y.to(out.dtype.element_ty), mask=of_head)
    tl.debug_barrier()  # all threads have read what is overwritten here
    tl.store(at, h, mask=tile)
    tl.store(key + states, k, mask=of_state)
    tl.store(value + own, new.to(value.dtype.element_ty), mask=of_head)
    tl.store(angle + pairs, kept_angle, mask=of_pair)


def mamba3_step(
    projected: Tensor,
    state: dict[str, Tensor],
    *,
    B_norm: RMSNorm,
    C_norm: RMSNorm,
    B_bias: Tensor,
    C_bias: Tensor,
    dt_bias: Tensor,
    D: Tensor,
    groups: int,
    weakest: float,
) -> Tensor:
    """y · silu(z) -> [B, H·P].

    projected: z and v [B, H·P], k and q [B, G·N], the step size, decay rate and trapezoid's share [B, H], and
        angles [B, R], side by side.
    state: `recurrent` [B, H, P, N], `angle` [B, H, R] and `key` [B, H, N] float32, and `value` [B, H, P],
        changed in place.
    B_norm, C_norm: of keys and of queries, over N, with the same eps.
    B_bias, C_bias: of keys and of queries [H, N].
    dt_bias, D: [H].
    groups: G.
    weakest: the smallest decay rate.
    """
    batch, heads, size, states = state["recurrent"].shape
    angles = state["angle"].shape[2]
    out = projected.new_empty(batch, heads * size)
    size_power, state_power = triton.next_power_of_2(size), triton.next_power_of_2(states)
    warps = max(1, min(16, size_power * state_power // (32 * _NUMBERS_A_THREAD)))
    _step[(batch * heads,)](
        projected,
        state["recurrent"],
        state["angle"],
        state["key"],
        state["value"],
        B_norm.weight,
        C_norm.weight,
        B_bias,
        C_bias,
        dt_bias,
        D,
        out,
        heads,
        groups,
        projected.shape[1],
        B_norm.eps,
        weakest,
        _TURN,
        SIZE=size,
        STATE=states,
        ANGLES=angles,
        SIZE_POWER=size_power,
        STATE_POWER=state_power,
        ANGLES_POWER=triton.next_power_of_2(angles),
        EARLY=starts_early(projected.device),
        **launch_options(projected.device, warps),
    )
    return out
