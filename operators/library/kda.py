"""Kimi Delta Attention: the delta rule with a decay per key channel and token, as in Kimi Linear.

Kimi Team 2025, arXiv 2510.26692.
"""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators.kernels.libraries import load, refusal
from operators.layers.delta_rule import delta_rule_flops
from operators.layers.linear_attention import matrix_state
from operators.layers.normalization import RMSNorm, l2_normalized
from operators.layers.recurrence import KeepsFloat32, Recurrence, by_chunk, from_chunks, initial_dt_bias
from operators.layers.short_convolution import (
    ShortConvolution,
    conv_parameters,
    conv_refusal,
    conv_spec,
    load_causal_conv1d,
)
from operators.library.gated_deltanet import GatedDeltaNetShape
from operators.operator import Backend, Operator, State, Surroundings, TensorSpec

CHUNK = 8  # tokens: short, as `chunked_kda` explains


class KDAShape(GatedDeltaNetShape):
    """The numbers of a Gated DeltaNet; decay and output gate come from projections of rank value_dim."""

    @classmethod
    def make(
        cls,
        width: int,
        *,
        head_dim: int = 64,
        expand: float = 1.0,
        value_ratio: float = 1.0,
        conv: int = 4,
        negative_eigenvalues: bool = False,
    ) -> Self:
        return super().make(
            width,
            head_dim=head_dim,
            expand=expand,
            value_ratio=value_ratio,
            conv=conv,
            negative_eigenvalues=negative_eigenvalues,
        )


def chunked_kda(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The recurrence of Kimi Delta Attention, in chunks.

    S_t = (I - β_t k_t k_tᵀ) diag(exp(log_decay_t)) S_{t-1} + β_t k_t v_tᵀ and o_t = S_tᵀ q_t / √K.

    q, k (of unit length) and log_decay (≤ 0) [B, T, H, K], v [B, T, H, V], beta [B, T, H], initial [B, H, K,
    V] -> out [B, T, H, V] and the final state [B, H, K, V], both float32.

    Every exponent is a difference to an earlier token and so never positive: nothing overflows, however
    strong the decay. This takes [L, L, K] numbers a chunk, which is why chunks are short. In a chunk the
    corrections of the tokens solve a triangular system (the UT transform).
    """
    tokens, size = q.shape[1], min(CHUNK, q.shape[1])
    q, k, v = (by_chunk(x.float(), size).contiguous() for x in (q * q.shape[-1] ** -0.5, k, v))
    beta = by_chunk(beta.float()[..., None], size)
    total = by_chunk(log_decay.float(), size).contiguous().cumsum(-2)  # [chunks, B, H, L, K]
    last = total[..., -1:, :]
    # The clamp changes later tokens alone, which tril and the solver drop.
    ratio = (total[..., :, None, :] - total[..., None, :, :]).clamp(max=0).exp()  # [chunks, B, H, L, L, K]
    within, scores = ((ratio * k[..., None, :, :]) @ torch.stack([k, q], -1)).unbind(-1)
    scores = scores.tril()
    # The solver reads the strictly lower triangle alone.
    inverse = torch.linalg.solve_triangular(
        beta * within, torch.eye(size, device=k.device), upper=False, unitriangular=True
    )
    fresh, stale = (inverse @ (beta * torch.cat([v, k * total.exp()], -1))).split(
        [v.shape[-1], k.shape[-1]], -1
    )
    q, k, keep = q * total.exp(), k * (last - total).exp(), last.mT.exp()

    state = torch.zeros_like(k[0].mT @ v[0]) if initial is None else initial.float()
    out = []
    chunks = zip(
        fresh.unbind(0),
        stale.unbind(0),
        q.unbind(0),
        scores.unbind(0),
        k.unbind(0),
        keep.unbind(0),
        strict=True,
    )
    for fresh_n, stale_n, q_n, scores_n, k_n, keep_n in chunks:
        correction = fresh_n - stale_n @ state
        out.append(q_n @ state + scores_n @ correction)
        state = keep_n * state + k_n.mT @ correction
    return from_chunks(torch.stack(out), tokens), state


def kda_step(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """One token of the rule -> [B, H, V] float32.

    q, k and log_decay [B, H, K], v [B, H, V], beta [B, H], state [B, H, K, V] (float32, updated in place).
    """
    q, k, v = q.float() * q.shape[-1] ** -0.5, k.float(), v.float()
    state.mul_(log_decay.float().exp()[..., None])
    correction = beta.float()[..., None] * (v - (k[..., None, :] @ state)[..., 0, :])
    state.addcmul_(k[..., None], correction[..., None, :])
    return (q[..., None, :] @ state)[..., 0, :]


# The decay's projection […, H, K], A_log [H] and dt_bias [H·K].
Decay = tuple[Tensor, Tensor, Tensor]


def _gates(decay: Decay, beta: Tensor, negative: bool) -> tuple[Tensor, Tensor]:
    """The decay and beta's projection […, H] -> the log decay […, H, K] (float32) and beta […, H].

    negative: whether beta is doubled.
    """
    raw, A_log, dt_bias = decay
    dt = F.softplus(raw.float() + dt_bias.float().view(raw.shape[-2:]))
    beta = beta.sigmoid()
    return -A_log.float().exp()[:, None] * dt, 2 * beta if negative else beta


def scan_reference(
    q: Tensor, k: Tensor, v: Tensor, decay: Decay, beta: Tensor, negative: bool, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The rule over a sequence, see `chunked_kda`.

    q, k: [B, T, H, K] before they have unit length.
    v: [B, T, H, V].
    decay, beta, negative: as in `_gates`.
    initial: the state before [B, H, K, V]; None for zeros.
    """
    return chunked_kda(l2_normalized(q), l2_normalized(k), v, *_gates(decay, beta, negative), initial)


def step_reference(
    q: Tensor, k: Tensor, v: Tensor, decay: Decay, beta: Tensor, negative: bool, state: Tensor
) -> Tensor:
    """One token of `scan_reference`; its arguments have no dimension T."""
    return kda_step(l2_normalized(q), l2_normalized(k), v, *_gates(decay, beta, negative), state)


def load_fla() -> Recurrence:
    """The kernels of flash-linear-attention. Raises ImportError."""
    chunk_kda = load("fla.ops.kda").chunk_kda
    one_token = load("fla.ops.kda.fused_recurrent").fused_recurrent_kda_fwd
    in_kernel = {
        "use_qk_l2norm_in_kernel": True,
        "use_gate_in_kernel": True,
        "use_beta_sigmoid_in_kernel": True,
    }

    def scan(
        q: Tensor, k: Tensor, v: Tensor, decay: Decay, beta: Tensor, negative: bool, initial: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        raw, A_log, dt_bias = decay
        state = {"initial_state": initial, "output_final_state": initial is not None}
        out, final = chunk_kda(
            q, k, v, raw, beta, A_log=A_log, dt_bias=dt_bias, allow_neg_eigval=negative, **state, **in_kernel
        )
        return out, final

    def step(
        q: Tensor, k: Tensor, v: Tensor, decay: Decay, beta: Tensor, negative: bool, state: Tensor
    ) -> Tensor:
        raw, A_log, dt_bias = decay
        q, k, v, raw, beta = (y[:, None].contiguous() for y in (q, k, v, raw, beta))
        out = torch.empty_like(v)
        # Unlike the library's documented function, this one writes the new state into the memory of the old.
        one_token(
            q,
            k,
            v,
            raw,
            beta,
            A_log,
            dt_bias,
            state,
            inplace_final_state=True,
            allow_neg_eigval=negative,
            out=out,
            **in_kernel,
        )
        return out[:, 0]

    return Recurrence(scan=scan, step=step, convolution=load_causal_conv1d())


def refuses_fla(shape: KDAShape, device: torch.device, dtype: torch.dtype) -> str | None:
    if shape.key_dim > 256:
        return f"fla takes a key_dim of up to 256 for kda, got {shape.key_dim}"
    return refusal(device, dtype) or conv_refusal(2 * shape.keys + shape.values, shape.conv)


class KDA(KeepsFloat32):
    """Kimi Delta Attention after a convolution, with an output gate.

    State: `recurrent` [B, H, K, V] (float32), and `conv` [B, H·(2K + V), conv - 1]
    for q, k and v side by side.
    """

    reads: ClassVar = ("q_proj", "k_proj", "v_proj", "b_proj", "decay_down_proj", "gate_down_proj")
    within: ClassVar = ("decay_up_proj", "gate_up_proj")
    writes: ClassVar = ("o_proj",)
    joined: ClassVar = ("q_proj", "k_proj", "v_proj")
    beside: ClassVar = ("b_proj", "decay_down_proj", "gate_down_proj")
    precise: ClassVar = ("A_log", "dt_bias")

    def __init__(self, architecture: Surroundings, shape: KDAShape, kda: Recurrence) -> None:
        super().__init__()
        self.shape, self.kda = shape, kda
        width, rank = architecture.width, shape.value_dim
        self.q_proj = nn.Linear(width, shape.keys, bias=False)
        self.k_proj = nn.Linear(width, shape.keys, bias=False)
        self.v_proj = nn.Linear(width, shape.values, bias=False)
        self.b_proj = nn.Linear(width, shape.heads, bias=False)
        self.decay_down_proj = nn.Linear(width, rank, bias=False)
        self.decay_up_proj = nn.Linear(rank, shape.keys, bias=False)
        self.gate_down_proj = nn.Linear(width, rank, bias=False)
        self.gate_up_proj = nn.Linear(rank, shape.values, bias=False)
        self.conv = ShortConvolution(
            2 * shape.keys + shape.values, shape.conv, kernels=kda.convolution if kda else None
        )
        self.A_log = nn.Parameter(torch.log(torch.empty(shape.heads).uniform_(1, 16)))
        self.dt_bias = nn.Parameter(initial_dt_bias(shape.keys))
        self.o_norm = RMSNorm(shape.value_dim, eps=architecture.norm_eps)
        self.o_proj = nn.Linear(shape.values, width, bias=False)

    def _project(self, x: Tensor) -> Tensor:
        return self.project(x)

    def _recurrence(self, x: Tensor, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor, Decay, Tensor, bool]:
        """x […, W] and qkv […, H·(2K + V)] -> the arguments of the kernels, up to the state."""
        parts = (
            *qkv.split([self.shape.keys, self.shape.keys, self.shape.values], -1),
            self.decay_up_proj(self.decay_down_proj(x)),
        )
        q, k, v, raw = (part.unflatten(-1, (self.shape.heads, -1)) for part in parts)
        return q, k, v, (raw, self.A_log, self.dt_bias), self.b_proj(x), self.shape.negative_eigenvalues

    def _output(self, x: Tensor, out: Tensor) -> Tensor:
        gate = self.gate_up_proj(self.gate_down_proj(x)).sigmoid()
        y: Tensor = self.o_proj(self.o_norm(out.to(x.dtype)).flatten(-2) * gate)
        return y

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        qkv = self.conv(self._project(x), state["conv"] if state else None)
        out, final = self.kda.scan(*self._recurrence(x, qkv), state["recurrent"] if state else None)
        if state:
            state["recurrent"].copy_(final)
        return self._output(x, out)

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        qkv = self.conv.step(self._project(x), state["conv"])
        return self._output(x, self.kda.step(*self._recurrence(x, qkv), state["recurrent"]))


def state_spec(shape: KDAShape, batch: int, max_length: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
    conv = conv_spec(batch, 2 * shape.keys + shape.values, shape.conv, dtype)
    return {**matrix_state(shape, batch, max_length, dtype), "conv": conv}


def _matrix_elements(width: int, shape: KDAShape) -> int:
    through_rank = shape.value_dim * (2 * width + shape.keys + shape.values)
    return width * (2 * shape.keys + 2 * shape.values + shape.heads) + through_rank


def parameters(width: int, shape: KDAShape) -> int:
    conv = conv_parameters(2 * shape.keys + shape.values, shape.conv)
    return _matrix_elements(width, shape) + conv + shape.heads + shape.keys + shape.value_dim


def flops(width: int, shape: KDAShape, context: int) -> int:
    matrices = 2 * _matrix_elements(width, shape) + 2 * (2 * shape.keys + shape.values) * shape.conv
    return matrices + delta_rule_flops(shape.heads, shape.key_dim, shape.value_dim, decay=True)


OPERATOR = Operator(
    symbol="k",
    kind="mixer",
    shape=KDAShape,
    genes={"head_dim": (32, 64, 128), "expand": (0.5, 0.75, 1.0), "negative_eigenvalues": (False, True)},
    parameters=parameters,
    flops=flops,
    build=KDA,
    backends={
        "fla": Backend(load=load_fla, refuses=refuses_fla),
        "reference": Backend(load=lambda: Recurrence(scan=scan_reference, step=step_reference)),
    },
    state=state_spec,
    precise=lambda shape: shape.heads + shape.keys,
    source="Kimi Team 2025, arXiv 2510.26692",
)
