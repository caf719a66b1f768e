"""One token of Mamba after its convolution: step sizes, state and gate in one kernel."""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.launching import launch_options, starts_early
from operators.kernels.low_rank import down, up, up_weights
from operators.kernels.softplus import softplus

_BLOCK = 32  # channels of a program: enough programs for all multiprocessors of a GPU
_MOST_NUMBERS = 8192  # of a program's state, or of its weights: 64 for each of its threads
MOST_BESIDE = 1024  # numbers of a channel's state, and its rank: a program has eight channels then


@triton.jit
def _step(
    convolved, projected, parts, recurrent, dt_up, dt_bias, A_log, D, out, channels,
    STATE: tl.constexpr, STATE_POWER: tl.constexpr, RANK: tl.constexpr, RANK_POWER: tl.constexpr,
    BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    batch, own = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    states = tl.arange(0, STATE_POWER)
    of_channel, of_state = own < channels, states < STATE
    tile = of_channel[:, None] & of_state[None, :]
    of_step = up_weights(dt_up, own, of_channel, RANK, RANK_POWER)
    bias = tl.load(dt_bias + own, mask=of_channel, other=0.0).to(tl.float32)
    skip = tl.load(D + own, mask=of_channel, other=0.0).to(tl.float32)
    # The kernel just before computed `parts`. The convolution and the gate are from kernels before that one.
    x = tl.load(convolved + batch * channels + own, mask=of_channel, other=0.0).to(tl.float32)
    z = tl.load(projected + (2 * batch + 1) * channels + own, mask=of_channel, other=0.0).to(tl.float32)
    # The state is loaded after the weights, as in `linear_attention_step`.
    a = -tl.exp(tl.load(A_log + own[:, None] * STATE + states[None, :], mask=tile, other=0.0).to(tl.float32))
    at = recurrent + (batch * channels + own)[:, None] * STATE + states[None, :]
    h = tl.load(at, mask=tile, other=0.0)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()

    row = parts + batch * (RANK + 2 * STATE)
    dt = softplus(up(of_step, down(row, RANK, RANK_POWER)) + bias)
    b = tl.load(row + RANK + states, mask=of_state, other=0.0).to(tl.float32)
    c = tl.load(row + RANK + STATE + states, mask=of_state, other=0.0).to(tl.float32)
    h = h * tl.exp(dt[:, None] * a) + (dt * x)[:, None] * b[None, :]
    y = (tl.sum(h * c[None, :], 1) + skip * x) * z * tl.sigmoid(z)
    tl.store(out + batch * channels + own, y.to(out.dtype.element_ty), mask=of_channel)
    tl.debug_barrier()  # all threads have read what is overwritten here
    tl.store(at, h, mask=tile)


def mamba_step(
    convolved: Tensor,
    projected: Tensor,
    parts: Tensor,
    recurrent: Tensor,
    *,
    dt_up: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
) -> Tensor:
    """y · silu(z) -> [B, C].

    convolved: x after its convolution [B, C]. The kernel just before must not have written it.
    projected: x before the convolution, and z [B, 2C]. Nor must the kernel just before have written this.
    parts: the input of low rank of the step sizes, b and c side by side [B, R + 2N].
    recurrent: the state [B, C, N] float32, changed in place.
    dt_up, dt_bias: the projection from the low rank to step sizes [C, R], and its bias [C].
    A_log: [C, N].
    D: [C].
    """
    batch, channels, states = recurrent.shape
    out = convolved.new_empty(batch, channels)
    state_power, rank_power = triton.next_power_of_2(states), triton.next_power_of_2(dt_up.shape[1])
    block = min(_BLOCK, _MOST_NUMBERS // max(state_power, rank_power))
    _step[(batch, triton.cdiv(channels, block))](
        convolved,
        projected,
        parts,
        recurrent,
        dt_up,
        dt_bias,
        A_log,
        D,
        out,
        channels,
        STATE=states,
        STATE_POWER=state_power,
        RANK=dt_up.shape[1],
        RANK_POWER=rank_power,
        BLOCK=block,
        EARLY=starts_early(convolved.device),
        **launch_options(convolved.device, 4),
    )
    return out
