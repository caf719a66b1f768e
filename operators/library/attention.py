"""Causal attention with grouped queries, rotary positions, and optionally query-key normalization and a sliding window.

Vaswani et al. 2017 (arXiv 1706.03762), grouped queries Ainslie et al. 2023 (arXiv 2305.13245), as in Llama and Qwen3.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from operators.architecture import Architecture
from operators.normalization import RMSNorm
from operators.operator import Backend, Operator, OperatorModule, Shape, State, TensorSpec
from operators.rope import rotate

# attend(q [B, T, H, D], k [B, S, Hkv, D], v [B, S, Hkv, D], allowed) -> [B, T, H, D].
# `allowed` [B or 1, T, S] (bool) says which slots a query may see; None means causal with T = S.
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class AttentionShape(Shape):
    """heads query heads of head_dim in groups that share kv_heads key-value heads.

    qk_norm: `head` normalizes every head by itself (Qwen3), `full` all heads of a token together (OLMo 2).
    window: how many tokens, itself included, a token sees; None is all.
    """

    heads: Annotated[int, Field(ge=1)]
    kv_heads: Annotated[int, Field(ge=1)]
    head_dim: Annotated[int, Field(ge=2, multiple_of=2)]
    qk_norm: Literal["none", "head", "full"] = "none"
    window: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"expected heads to be a multiple of kv_heads, got heads {self.heads} and kv_heads {self.kv_heads}")
        return self

    @classmethod
    def make(
        cls,
        width: int,
        *,
        head_dim: int = 64,
        group: int = 2,
        expand: float = 1.0,
        qk_norm: Literal["none", "head", "full"] = "none",
        window: int | None = None,
    ) -> Self:
        kv_heads = max(1, round(expand * width / (head_dim * group)))
        return cls(heads=kv_heads * group, kv_heads=kv_heads, head_dim=head_dim, qk_norm=qk_norm, window=window)

    def genes(self, width: int) -> dict[str, Any]:
        return {
            "head_dim": self.head_dim,
            "group": self.heads // self.kv_heads,
            "expand": self.heads * self.head_dim / width,
            "qk_norm": self.qk_norm,
            "window": self.window,
        }


def attend_reference(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Softmax attention by its definition, scores in float32."""
    group = q.shape[2] // k.shape[2]
    if allowed is None:
        allowed = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril()[None]
    k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
    scores = torch.einsum("bthd,bshd->bhts", q, k).float() * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~allowed[:, None], float("-inf")).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights.to(v.dtype), v)


def attend_sdpa(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """The same by `torch.nn.functional.scaled_dot_product_attention`."""
    mask = allowed[:, None] if allowed is not None else None
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped).transpose(1, 2)


class Attention(OperatorModule):
    """State: `key` and `value` [B, S, Hkv, D]. Slot p mod S holds position p, so a window needs no more slots than it is long."""

    reads: ClassVar = ("q_proj", "k_proj", "v_proj")
    writes: ClassVar = ("o_proj",)

    def __init__(self, architecture: Architecture, shape: AttentionShape, attend: Attend) -> None:
        super().__init__()
        self.shape, self.rope, self.attend = shape, architecture.rope, attend
        width, queries, keys = architecture.width, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(width, queries, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, keys, bias=False)
        self.o_proj = nn.Linear(queries, width, bias=False)
        self.q_norm = self.k_norm = None
        if shape.qk_norm != "none":
            whole = shape.qk_norm == "full"
            self.q_norm = RMSNorm(queries if whole else shape.head_dim, eps=architecture.norm_eps)
            self.k_norm = RMSNorm(keys if whole else shape.head_dim, eps=architecture.norm_eps)

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, W] at positions [B or 1, T] -> q [B, T, H, D], k and v [B, T, Hkv, D], normalized and rotated."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.q_norm is not None and self.k_norm is not None and self.shape.qk_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.unflatten(-1, (-1, self.shape.head_dim)) for y in (q, k, v))
        if self.q_norm is not None and self.k_norm is not None and self.shape.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            q, k = rotate(q, positions, self.rope.theta), rotate(k, positions, self.rope.theta)
        return q, k, v

    def _allowed(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Which of the keys' positions [B, S] (negative: an empty slot) the queries' positions [B, T] may see: [B, T, S]."""
        distance = queries[:, :, None] - keys[:, None, :]
        allowed = (distance >= 0) & (keys >= 0)[:, None, :]
        return allowed if self.shape.window is None else allowed & (distance < self.shape.window)

    def forward(self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0) -> Tensor:
        tokens = x.shape[1]
        positions = torch.arange(tokens, device=x.device)[None]
        if position is not None:
            positions = positions + position[:, None]
        q, k, v = self._project(x, positions)
        if state is None or position is None or length == 0:
            whole = self.shape.window is None or self.shape.window >= tokens
            out = self.attend(q, k, v, None if whole else self._allowed(positions, positions))
        else:
            slots = min(length, state["key"].shape[1])
            before = _slot_positions(position, state["key"].shape[1])[:, :slots]
            allowed = self._allowed(positions, torch.cat([before, positions], 1))
            out = self.attend(q, torch.cat([state["key"][:, :slots], k], 1), torch.cat([state["value"][:, :slots], v], 1), allowed)
        if state is not None:
            kept = min(tokens, state["key"].shape[1])
            _write(state, k[:, -kept:], v[:, -kept:], positions[:, -kept:])
        y: Tensor = self.o_proj(out.flatten(2))
        return y

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        positions = position[:, None]
        q, k, v = self._project(x[:, None], positions)
        _write(state, k, v, positions)
        allowed = self._allowed(positions, _slot_positions(position + 1, state["key"].shape[1]))
        y: Tensor = self.o_proj(self.attend(q, state["key"], state["value"], allowed).flatten(1))
        return y


def _slot_positions(count: Tensor, slots: int) -> Tensor:
    """The position that each slot holds after `count` [B] tokens, negative where it is empty: [B, S]."""
    last = count[:, None] - 1
    return last - (last - torch.arange(slots, device=count.device)) % slots


def _write(state: State, k: Tensor, v: Tensor, positions: Tensor) -> None:
    slots = (positions % state["key"].shape[1]).expand(k.shape[0], -1)
    rows = torch.arange(k.shape[0], device=k.device)[:, None]
    state["key"][rows, slots] = k.to(state["key"].dtype)
    state["value"][rows, slots] = v.to(state["value"].dtype)


def state_spec(shape: AttentionShape, batch: int, max_length: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
    slots = min(max_length, shape.window or max_length)
    spec = TensorSpec((batch, slots, shape.kv_heads, shape.head_dim), dtype)
    return {"key": spec, "value": spec}


def parameters(width: int, shape: AttentionShape) -> int:
    norms = {"none": 0, "head": 2 * shape.head_dim, "full": (shape.heads + shape.kv_heads) * shape.head_dim}
    return 2 * width * (shape.heads + shape.kv_heads) * shape.head_dim + norms[shape.qk_norm]


def flops(width: int, shape: AttentionShape, context: int) -> int:
    seen = min(context, shape.window or context)
    return 4 * width * (shape.heads + shape.kv_heads) * shape.head_dim + 4 * seen * shape.heads * shape.head_dim


OPERATOR = Operator(
    symbol="a",
    kind="mixer",
    shape=AttentionShape,
    genes={"head_dim": (32, 64, 128), "group": (1, 2, 4), "qk_norm": ("none", "head"), "window": (None, 512)},
    parameters=parameters,
    flops=flops,
    build=Attention,
    backends={"sdpa": Backend(load=lambda: attend_sdpa), "reference": Backend(load=lambda: attend_reference)},
    state=state_spec,
    source="Vaswani et al. 2017, arXiv 1706.03762; Ainslie et al. 2023, arXiv 2305.13245",
)
