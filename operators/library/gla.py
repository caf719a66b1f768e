"""Gated Linear Attention: a decay per key channel and token, and an output gate.

Yang et al. 2023, arXiv 2312.06635.
"""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators.kernels.libraries import load, refusal
from operators.layers.linear_attention import (
    LinearAttentionShape,
    gated_output,
    matrix_state,
    matrix_state_flops,
)
from operators.layers.normalization import RMSNorm
from operators.layers.recurrence import Recurrence, by_chunk, carry, from_chunks
from operators.operator import Backend, Operator, OperatorModule, State, Surroundings

CHUNK = 16  # tokens: short, as `chunked_gla` explains
# The paper's rank of the decay's projection, and the number that divides log
# decays: they stay close to 0 then.
GATE_RANK = 16
GATE_TEMPERATURE = 16


class GLAShape(LinearAttentionShape):
    """Heads of key_dim for queries and keys, and of value_dim for values."""

    @classmethod
    def make(cls, width: int, *, head_dim: int = 64, expand: float = 1.0, key_ratio: float = 0.5) -> Self:
        heads = max(1, round(expand * width / head_dim))
        return cls(heads=heads, key_dim=max(1, round(key_ratio * head_dim)), value_dim=head_dim)

    def genes(self, width: int) -> dict[str, Any]:
        return {
            "head_dim": self.value_dim,
            "expand": self.values / width,
            "key_ratio": self.key_dim / self.value_dim,
        }


def chunked_gla(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_tᵀ and o_t = S_tᵀ q_t / √K, in chunks.

    q, k and log_decay (≤ 0) [B, T, H, K], v [B, T, H, V], initial [B, H, K, V]
    -> out [B, T, H, V] and the final state [B, H, K, V], both float32.

    Every exponent is a difference to an earlier token and so never positive: nothing overflows, however
    strong the decay. This takes [L, L, K] numbers a chunk, which is why chunks are short.
    """
    tokens, size = q.shape[1], min(CHUNK, q.shape[1])
    q, k, v = (by_chunk(x.float(), size).contiguous() for x in (q * q.shape[-1] ** -0.5, k, v))
    total = by_chunk(log_decay.float(), size).contiguous().cumsum(-2)  # [chunks, B, H, L, K]
    last = total[..., -1:, :]
    # The clamp changes later tokens alone, which tril drops.
    ratio = (total[..., :, None, :] - total[..., None, :, :]).clamp(max=0).exp()  # [chunks, B, H, L, L, K]
    scores = ((ratio * k[..., None, :, :]) @ q[..., None])[..., 0].tril()
    written = (k * (last - total).exp()).mT @ v
    start = torch.zeros_like(written[0]) if initial is None else initial.float()
    before, final = carry(last.mT.exp(), written, start)
    return from_chunks(scores @ v + (q * total.exp()) @ before, tokens), final


def gla_step(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> Tensor:
    """One token of gated linear attention -> [B, H, V] float32.

    q, k and log_decay [B, H, K], v [B, H, V], state [B, H, K, V] (float32, updated in place).
    """
    state.mul_(log_decay.float().exp()[..., None])
    state.addcmul_(k.float()[..., None], v.float()[..., None, :])
    q = q.float() * q.shape[-1] ** -0.5
    return (q[..., None, :] @ state)[..., 0, :]


def load_fla() -> Recurrence:
    """The kernels of flash-linear-attention. Raises ImportError."""
    library = load("fla.ops.gla")

    def scan(
        q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, initial: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        out, final = library.chunk_gla(
            q, k, v, log_decay, initial_state=initial, output_final_state=initial is not None
        )
        return out, final

    def step(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> Tensor:
        one = (y[:, None] for y in (q, k, v, log_decay))
        out, final = library.fused_recurrent_gla(*one, initial_state=state, output_final_state=True)
        state.copy_(final)
        y: Tensor = out[:, 0]
        return y

    return Recurrence(scan=scan, step=step)


def refuses_fla(shape: GLAShape, device: torch.device, dtype: torch.dtype) -> str | None:
    return refusal(device, dtype)


class GLA(OperatorModule):
    """Gated linear attention with an output gate. State: `recurrent` [B, H, K, V] (float32)."""

    reads: ClassVar = ("q_proj", "k_proj", "v_proj", "g_proj", "decay_down_proj")
    within: ClassVar = ("decay_up_proj",)
    writes: ClassVar = ("o_proj",)
    joined: ClassVar = ("q_proj", "k_proj", "v_proj")
    beside: ClassVar = ("g_proj", "decay_down_proj")

    def __init__(self, architecture: Surroundings, shape: GLAShape, gla: Recurrence) -> None:
        super().__init__()
        self.shape, self.gla = shape, gla
        width = architecture.width
        self.q_proj = nn.Linear(width, shape.keys, bias=False)
        self.k_proj = nn.Linear(width, shape.keys, bias=False)
        self.v_proj = nn.Linear(width, shape.values, bias=False)
        self.g_proj = nn.Linear(width, shape.values, bias=False)
        self.decay_down_proj = nn.Linear(width, GATE_RANK, bias=False)
        self.decay_up_proj = nn.Linear(GATE_RANK, shape.keys)
        self.o_norm = RMSNorm(shape.value_dim, eps=architecture.norm_eps)
        self.o_proj = nn.Linear(shape.values, width, bias=False)

    def _recurrence(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x […, W] -> q, k […, H, K], v […, H, V] and the log decay […, H, K] (float32)."""
        log_decay = F.logsigmoid(self.decay_up_proj(self.decay_down_proj(x)).float()) / GATE_TEMPERATURE
        parts = (*self.project_each(x), log_decay)
        q, k, v, log_decay = (part.unflatten(-1, (self.shape.heads, -1)) for part in parts)
        return q, k, v, log_decay

    def _output(self, x: Tensor, out: Tensor) -> Tensor:
        return gated_output(x, out, gate=self.g_proj, norm=self.o_norm, projection=self.o_proj)

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        out, final = self.gla.scan(*self._recurrence(x), state["recurrent"] if state else None)
        if state:
            state["recurrent"].copy_(final)
        return self._output(x, out)

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        return self._output(x, self.gla.step(*self._recurrence(x), state["recurrent"]))


def _matrix_elements(width: int, shape: GLAShape) -> int:
    return width * (2 * shape.keys + 3 * shape.values) + GATE_RANK * (width + shape.keys)


def parameters(width: int, shape: GLAShape) -> int:
    return _matrix_elements(width, shape) + shape.keys + shape.value_dim


def flops(width: int, shape: GLAShape, context: int) -> int:
    return 2 * _matrix_elements(width, shape) + matrix_state_flops(shape)


OPERATOR = Operator(
    symbol="l",
    kind="mixer",
    shape=GLAShape,
    genes={"head_dim": (32, 64, 128, 256), "expand": (0.75, 1.0, 1.5), "key_ratio": (0.5, 1.0)},
    parameters=parameters,
    flops=flops,
    build=GLA,
    backends={
        "fla": Backend(load=load_fla, refuses=refuses_fla),
        "reference": Backend(load=lambda: Recurrence(scan=chunked_gla, step=gla_step)),
    },
    state=matrix_state,
    source="Yang et al. 2023, arXiv 2312.06635",
)
