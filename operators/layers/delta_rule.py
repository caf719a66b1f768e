"""The delta rule, with or without decay, for a sequence in chunks and for one token.

S_t = a_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ and o_t = S_tᵀ q_t / √K (Yang et al. 2024, arXiv
2406.06484). The gated delta rule has a decay a_t = exp(log_decay_t) (Yang et al. 2024, arXiv 2412.06464);
else a_t = 1.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators.kernels.libraries import load
from operators.layers.recurrence import by_chunk, from_chunks

CHUNK = 64  # tokens: the work within a chunk grows with its square, the steps between chunks shrink with it


def chunked_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The delta rule over a sequence -> out [B, T, H, V] and the final state [B, H, K, V], both float32.

    In a chunk the corrections U of the tokens solve (I + A) U = β (V - K̃ S), with A strictly lower
    triangular (the UT transform). So only the chunks have to be computed one after another.

    q, k: [B, T, H, K].
    v: [B, T, H, V].
    beta: [B, T, H].
    log_decay: [B, T, H], not above 0; None for no decay.
    initial: the state before [B, H, K, V]; None for zeros.
    """
    tokens, size = k.shape[1], min(CHUNK, k.shape[1])
    q, k, v = (by_chunk(x.float(), size).contiguous() for x in (q * k.shape[-1] ** -0.5, k, v))
    beta = by_chunk(beta.float()[..., None], size)
    within, scores = k @ k.mT, q @ k.mT
    k_read, k_write, keep = k, k, None
    if log_decay is not None:
        total = by_chunk(log_decay.float()[..., None], size).cumsum(-2)
        future = torch.ones(size, size, dtype=torch.bool, device=k.device).triu(1)
        # Masked before exp: differences to later tokens are positive and could overflow.
        ratio = (total - total.mT).masked_fill(future, float("-inf")).exp()
        within, scores = within * ratio, scores * ratio
        k_read, q, k_write = k * total.exp(), q * total.exp(), k * (total[..., -1:, :] - total).exp()
        keep = total[..., -1:, :].exp()
    else:
        scores = scores.tril()
    # The solver reads the strictly lower triangle alone, so the rest of A needs no mask. The inverse has
    # fewer columns than the solutions for V and K̃ together, and a product costs less than solving.
    inverse = torch.linalg.solve_triangular(
        beta * within, torch.eye(size, device=k.device), upper=False, unitriangular=True
    )
    fresh, stale = (inverse @ (beta * torch.cat([v, k_read], -1))).split([v.shape[-1], k.shape[-1]], -1)

    state = k.new_zeros(*k.shape[1:3], k.shape[-1], v.shape[-1]) if initial is None else initial.float()
    out = []
    chunks = zip(
        fresh.unbind(0), stale.unbind(0), q.unbind(0), scores.unbind(0), k_write.unbind(0), strict=True
    )
    for number, (fresh_n, stale_n, q_n, scores_n, k_n) in enumerate(chunks):
        correction = fresh_n - stale_n @ state
        out.append(q_n @ state + scores_n @ correction)
        state = (state if keep is None else keep[number] * state) + k_n.mT @ correction
    return from_chunks(torch.stack(out), tokens), state


def delta_rule_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor
) -> Tensor:
    """One token of the delta rule -> [B, H, V] float32.

    q, k: [B, H, K].
    v: [B, H, V].
    beta, log_decay: [B, H].
    state: [B, H, K, V] float32, updated in place.
    """
    q, k, v = q.float() * k.shape[-1] ** -0.5, k.float(), v.float()
    if log_decay is not None:
        state.mul_(log_decay.float().exp()[..., None, None])
    correction = beta.float()[..., None] * (v - (k[..., None, :] @ state)[..., 0, :])
    state.addcmul_(k[..., None], correction[..., None, :])
    return (q[..., None, :] @ state)[..., 0, :]


# Arguments by which the kernel of version 0.6 is recognized; other versions' kernels take others.
DECODE_ARGUMENTS = {"A_log", "dt_bias", "h0", "ht", "APPLY_BETA_SIGMOID", "ALLOW_NEG_EIGVAL", "STATE_V_FIRST"}


def load_fla_step() -> Callable[..., Tensor]:
    """The step of flash-linear-attention for one token, with gates and normalization. Raises ImportError.

    It is called as step(q, k, v, beta, state, negative=False, decay=None) -> [B, H, V], with
    q, k: [B, H, K] of any length.
    v: [B, H, V].
    beta: [B, H] before its sigmoid.
    state: [B, H, K, V] float32, updated in place.
    negative: whether beta is doubled.
    decay: the decay's input [B, H], A_log and dt_bias [H].

    The kernel is launched without the library's own wrapper, which would write the new state to other memory.
    """
    kernel = load("fla.ops.gated_delta_rule.fused_recurrent").fused_recurrent_gated_delta_rule_fwd_kernel
    power_of_2 = load("triton").next_power_of_2
    if missing := DECODE_ARGUMENTS - set(kernel.arg_names):
        raise ImportError(
            "flash-linear-attention 0.6 is needed: its decode kernel does not take "
            f"{', '.join(sorted(missing))} here"
        )

    def step(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor,
        state: Tensor,
        *,
        negative: bool = False,
        decay: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        batch, heads, key_dim, value_dim = state.shape
        block = min(8, power_of_2(value_dim))
        gates: dict[str, Any] = dict(zip(("g", "A_log", "dt_bias"), decay or (None, None, None), strict=True))
        sizes = {
            "H": heads,
            "HV": heads,
            "K": key_dim,
            "V": value_dim,
            "BK": power_of_2(key_dim),
            "BV": block,
        }
        out = torch.empty_like(v)
        kernel[(batch * heads * -(-value_dim // block),)](
            **gates,
            **sizes,
            q=q,
            k=k,
            v=v,
            gk=None,
            gv=None,
            beta=beta,
            o=out,
            h0=state,
            ht=state,
            cu_seqlens=None,
            scale=key_dim**-0.5,
            T=1,
            IS_BETA_HEADWISE=True,
            USE_QK_L2NORM_IN_KERNEL=True,
            APPLY_BETA_SIGMOID=True,
            ALLOW_NEG_EIGVAL=negative,
            STATE_V_FIRST=False,
            num_warps=1,
            num_stages=3,
        )
        return out

    return step


def delta_rule_flops(heads: int, key_dim: int, value_dim: int, *, decay: bool) -> int:
    """Forward FLOPs of one token: a read with k, a write, a read with q, and the decay if there is one."""
    return heads * key_dim * value_dim * (7 if decay else 6)
