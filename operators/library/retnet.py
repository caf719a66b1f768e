"""RetNet's retention: linear attention with a fixed decay, different in each head.

Sun et al. 2023, arXiv 2307.08621.
"""

from functools import cache
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from operators.kernels.libraries import load, refusal
from operators.layers.linear_attention import (
    LinearAttentionShape,
    gated_output,
    matrix_state,
    matrix_state_flops,
)
from operators.layers.normalization import RMSNorm
from operators.layers.recurrence import Recurrence, by_chunk, carry, from_chunks
from operators.layers.rope import rotated, turn_at
from operators.operator import Backend, Operator, OperatorModule, State, Surroundings

CHUNK = 64  # tokens: the work within a chunk grows with its square, the steps between chunks shrink with it
# The base of the rotation. Retention rotates by definition, whether the architecture's attention does or not.
THETA = 10_000.0


class RetNetShape(LinearAttentionShape):
    """Heads of key_dim, which is even since keys are rotated, and of value_dim."""

    key_dim: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _rotatable(self) -> Self:
        if self.key_dim % 2:
            raise ValueError(f"expected an even key_dim, got {self.key_dim}")
        return self

    @classmethod
    def make(cls, width: int, *, head_dim: int = 64, expand: float = 1.0, value_ratio: float = 2.0) -> Self:
        heads = max(1, round(expand * width / head_dim))
        return cls(heads=heads, key_dim=head_dim, value_dim=max(1, round(value_ratio * head_dim)))

    def genes(self, width: int) -> dict[str, Any]:
        return {
            "head_dim": self.key_dim,
            "expand": self.keys / width,
            "value_ratio": self.value_dim / self.key_dim,
        }


def log_decay(heads: int, device: torch.device) -> Tensor:
    """[H] float32: log(1 - 2^-(5 + h)). Head h forgets half of a token after about 22 · 2^h further ones."""
    return torch.log1p(-torch.exp2(-5.0 - torch.arange(heads, device=device)))


def chunked_retention(q: Tensor, k: Tensor, v: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    """S_t = exp(log_decay) S_{t-1} + k_t v_tᵀ and o_t = S_tᵀ q_t / √K, in chunks.

    q and k [B, T, H, K], v [B, T, H, V], initial [B, H, K, V]
    -> out [B, T, H, V] and the final state [B, H, K, V], both float32.
    """
    tokens, size, heads = q.shape[1], min(CHUNK, q.shape[1]), q.shape[2]
    q, k, v = (by_chunk(x.float(), size).contiguous() for x in (q * q.shape[-1] ** -0.5, k, v))
    decay = log_decay(heads, q.device)[:, None]
    age = torch.arange(1, size + 1, device=q.device)
    since = (age[:, None] - age).clamp(min=0)  # the clamp changes later tokens alone, which tril drops
    scores = q @ k.mT * (since * decay[..., None]).exp().tril()
    # The last chunk may be filled up. A fixed decay would go on there, so its state
    # counts from the last true token.
    left = torch.full((q.shape[0], 1, 1), size, device=q.device)
    left[-1] -= -tokens % size
    written = (k * ((left - age).clamp(min=0) * decay).exp()[:, None, ..., None]).mT @ v
    kept = (left * decay).exp()[:, None, ..., None]
    before, final = carry(kept, written, torch.zeros_like(written[0]) if initial is None else initial.float())
    return from_chunks(scores @ v + (q * (age * decay).exp()[..., None]) @ before, tokens), final


def retention_step(q: Tensor, k: Tensor, v: Tensor, state: Tensor) -> Tensor:
    """One token of the retention -> [B, H, V] float32.

    q and k [B, H, K], v [B, H, V], state [B, H, K, V] (float32, updated in place).
    """
    state.mul_(log_decay(q.shape[1], q.device).exp()[:, None, None])
    state.addcmul_(k.float()[..., None], v.float()[..., None, :])
    q = q.float() * q.shape[-1] ** -0.5
    return (q[..., None, :] @ state)[..., 0, :]


@cache
def _kept_log_decay(heads: int, device: torch.device) -> Tensor:
    """`log_decay`, computed once, so that a decode step need not."""
    # Outside inference mode, since training may use the tensor later.
    with torch.inference_mode(False):
        return log_decay(heads, device)


def load_fla() -> Recurrence:
    """The kernels of flash-linear-attention. Raises ImportError."""
    library = load("fla.ops.simple_gla")

    def scan(q: Tensor, k: Tensor, v: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
        decay = _kept_log_decay(q.shape[2], q.device)
        out, final = library.chunk_simple_gla(
            q, k, v, g_gamma=decay, initial_state=initial, output_final_state=initial is not None
        )
        return out, final

    def step(q: Tensor, k: Tensor, v: Tensor, state: Tensor) -> Tensor:
        decay = _kept_log_decay(q.shape[1], q.device)
        one = (y[:, None] for y in (q, k, v))
        out, final = library.fused_recurrent_simple_gla(
            *one, g_gamma=decay, initial_state=state, output_final_state=True
        )
        state.copy_(final)
        y: Tensor = out[:, 0]
        return y

    return Recurrence(scan=scan, step=step)


def refuses_fla(shape: RetNetShape, device: torch.device, dtype: torch.dtype) -> str | None:
    if shape.key_dim > 64 or shape.value_dim > 128:
        return (
            "fla's kernels run out of shared memory beyond keys of 64 and values of 128, "
            f"got {shape.key_dim} and {shape.value_dim}"
        )
    return refusal(device, dtype)


class RetNet(OperatorModule):
    """Retention with an output gate. State: `recurrent` [B, H, K, V] (float32)."""

    reads: ClassVar = ("q_proj", "k_proj", "v_proj", "g_proj")
    writes: ClassVar = ("o_proj",)
    joined: ClassVar = ("q_proj", "k_proj", "v_proj")
    beside: ClassVar = ("g_proj",)

    def __init__(self, architecture: Surroundings, shape: RetNetShape, retention: Recurrence) -> None:
        super().__init__()
        self.shape, self.retention = shape, retention
        width = architecture.width
        self.q_proj = nn.Linear(width, shape.keys, bias=False)
        self.k_proj = nn.Linear(width, shape.keys, bias=False)
        self.v_proj = nn.Linear(width, shape.values, bias=False)
        self.g_proj = nn.Linear(width, shape.values, bias=False)
        self.o_norm = RMSNorm(shape.value_dim, eps=architecture.norm_eps)
        self.o_proj = nn.Linear(shape.values, width, bias=False)

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, W] at positions [B or 1, T] -> q and k [B, T, H, K], rotated, and v [B, T, H, V]."""
        q, k, v = (part.unflatten(-1, (self.shape.heads, -1)) for part in self.project_each(x))
        turn = turn_at(positions, THETA, None, q.shape[-1])
        return rotated(turn, q), rotated(turn, k), v

    def _output(self, x: Tensor, out: Tensor) -> Tensor:
        return gated_output(x, out, gate=self.g_proj, norm=self.o_norm, projection=self.o_proj)

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)[None]
        if position is not None:
            positions = positions + position[:, None]
        out, final = self.retention.scan(*self._project(x, positions), state["recurrent"] if state else None)
        if state:
            state["recurrent"].copy_(final)
        return self._output(x, out)

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        q, k, v = (y[:, 0] for y in self._project(x[:, None], position[:, None]))
        return self._output(x, self.retention.step(q, k, v, state["recurrent"]))


def _matrix_elements(width: int, shape: RetNetShape) -> int:
    return width * (2 * shape.keys + 3 * shape.values)


def parameters(width: int, shape: RetNetShape) -> int:
    return _matrix_elements(width, shape) + shape.value_dim


def flops(width: int, shape: RetNetShape, context: int) -> int:
    return 2 * _matrix_elements(width, shape) + matrix_state_flops(shape)


OPERATOR = Operator(
    symbol="n",
    kind="mixer",
    shape=RetNetShape,
    genes={"head_dim": (32, 64, 128, 256), "expand": (0.5, 0.75, 1.0), "value_ratio": (1.0, 2.0)},
    parameters=parameters,
    flops=flops,
    build=RetNet,
    backends={
        "fla": Backend(load=load_fla, refuses=refuses_fla),
        "reference": Backend(load=lambda: Recurrence(scan=chunked_retention, step=retention_step)),
    },
    state=matrix_state,
    source="Sun et al. 2023, arXiv 2307.08621",
)
