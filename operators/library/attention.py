"""Causal attention with grouped queries and rotary positions, as in Llama and Qwen3.

Query-key normalization and a sliding window are optional. The papers are Vaswani et al. 2017 (arXiv
1706.03762) and, for grouped queries, Ainslie et al. 2023 (arXiv 2305.13245).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from operators.kernels.libraries import load, refusal
from operators.layers.normalization import RMSNorm
from operators.layers.rope import frequencies, rotated, turn_at
from operators.operator import Backend, Operator, OperatorModule, State, Surroundings, TensorSpec
from operators.rope import Rope
from operators.shape import Shape


@dataclass(frozen=True)
class Attend:
    """The kernels of attention, with q [B, T, H, D] and k and v [B, S, Hkv, D] -> [B, T, H, D].

    All but `masked` may be None: then `masked` does their work.

    masked: (q, k, v, allowed). `allowed` [B or 1, T, S] (bool) is the slots that a query may see; None means
        causal with T = S.
    causal: (q, k, v, window), causal with T = S. Every query sees `window` tokens, its own included, or all.
    cached: (q, k, v, state, position). It appends k and v [B, T, Hkv, D] to caches with a slot for every
        position, after the `position` [B] tokens that they hold, and attends to all of these.
    rotated: (q, k, v, state, position, rope), the same for one token; it also rotates q and k.
    ring: (q, state, position) for one token. It attends to all filled slots of the caches, which hold the
        token's own key and value already.
    """

    masked: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    causal: Callable[[Tensor, Tensor, Tensor, int | None], Tensor] | None = None
    cached: Callable[[Tensor, Tensor, Tensor, State, Tensor], Tensor] | None = None
    rotated: Callable[[Tensor, Tensor, Tensor, State, Tensor, Rope], Tensor] | None = None
    ring: Callable[[Tensor, State, Tensor], Tensor] | None = None


class AttentionShape(Shape):
    """Query heads in groups, each of which shares a head of keys and values.

    heads: query heads.
    kv_heads: heads of keys and values.
    head_dim: size of a head.
    qk_norm: `head` normalizes every head by itself (Qwen3), `full` all heads of a token together (OLMo 2).
    window: tokens that a token sees, itself included; None for all.
    qkv_bias: whether queries, keys and values have a bias (Qwen2).
    """

    heads: Annotated[int, Field(ge=1)]
    kv_heads: Annotated[int, Field(ge=1)]
    head_dim: Annotated[int, Field(ge=2, multiple_of=2)]
    qk_norm: Literal["none", "head", "full"] = "none"
    window: Annotated[int, Field(ge=1)] | None = None
    qkv_bias: bool = False

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(
                "expected heads to be a multiple of kv_heads, "
                f"got heads {self.heads} and kv_heads {self.kv_heads}"
            )
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
        qkv_bias: bool = False,
    ) -> Self:
        kv_heads = max(1, round(expand * width / (head_dim * group)))
        return cls(
            heads=kv_heads * group,
            kv_heads=kv_heads,
            head_dim=head_dim,
            qk_norm=qk_norm,
            window=window,
            qkv_bias=qkv_bias,
        )

    def genes(self, width: int) -> dict[str, Any]:
        return {
            "head_dim": self.head_dim,
            "group": self.heads // self.kv_heads,
            "expand": self.heads * self.head_dim / width,
            "qk_norm": self.qk_norm,
            "window": self.window,
            "qkv_bias": self.qkv_bias,
        }


def attend_reference(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """`Attend.masked` by the definition of softmax attention, with scores in float32."""
    group = q.shape[2] // k.shape[2]
    if allowed is None:
        allowed = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril()[None]
    k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
    scores = torch.einsum("bthd,bshd->bhts", q, k).float() * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~allowed[:, None], float("-inf")).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights.to(v.dtype), v)


def attend_sdpa(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """`Attend.masked` by `torch.nn.functional.scaled_dot_product_attention`."""
    mask = allowed[:, None] if allowed is not None else None
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
    ).transpose(1, 2)


@cache
def _rotary_table(
    rope: Rope, half: int, slots: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [S, D / 2] of a cache's positions. Kept, as captured graphs use their addresses."""
    with torch.inference_mode(False):
        angle = torch.arange(slots, device=device, dtype=torch.float32)[:, None] * frequencies(
            rope.theta, rope.scaling, half, device
        )
        return angle.cos().to(dtype), angle.sin().to(dtype)


def load_flash_attn() -> Attend:
    """The kernels of flash_attn. Raises ImportError."""
    library = load("flash_attn")

    def causal(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        seen = (-1, -1) if window is None else (window - 1, 0)
        deterministic = torch.are_deterministic_algorithms_enabled()
        y: Tensor = library.flash_attn_func(
            q, k, v, causal=True, window_size=seen, deterministic=deterministic
        )
        return y

    def cached(q: Tensor, k: Tensor, v: Tensor, state: State, position: Tensor) -> Tensor:
        filled = position.to(torch.int32)
        y: Tensor = library.flash_attn_with_kvcache(
            q, state["key"], state["value"], k, v, cache_seqlens=filled, causal=True
        )
        return y

    def rotated(q: Tensor, k: Tensor, v: Tensor, state: State, position: Tensor, rope: Rope) -> Tensor:
        table = _rotary_table(rope, q.shape[-1] // 2, state["key"].shape[1], q.device, q.dtype)
        arguments = (q, state["key"], state["value"], k, v, *table)
        y: Tensor = library.flash_attn_with_kvcache(
            *arguments, cache_seqlens=position.to(torch.int32), causal=True, rotary_interleaved=False
        )
        return y

    def ring(q: Tensor, state: State, position: Tensor) -> Tensor:
        # The cache holds rotated keys, so the order of the slots does not matter.
        filled = (position + 1).clamp(max=state["key"].shape[1]).to(torch.int32)
        y: Tensor = library.flash_attn_with_kvcache(q, state["key"], state["value"], cache_seqlens=filled)
        return y

    return Attend(masked=attend_sdpa, causal=causal, cached=cached, rotated=rotated, ring=ring)


def refuses_flash_attn(shape: AttentionShape, device: torch.device, dtype: torch.dtype) -> str | None:
    if shape.head_dim % 16 or shape.head_dim > 256:
        return f"flash_attn takes a head_dim of up to 256 in multiples of 16, got {shape.head_dim}"
    return refusal(device, dtype)


class Attention(OperatorModule):
    """Causal attention.

    State: `key` and `value` [B, S, Hkv, D]. Slot p mod S holds position p, so that a window needs as
    many slots as it is long.
    """

    reads: ClassVar = ("q_proj", "k_proj", "v_proj")
    writes: ClassVar = ("o_proj",)
    joined: ClassVar = ("q_proj", "k_proj", "v_proj")

    def __init__(self, architecture: Surroundings, shape: AttentionShape, attend: Attend) -> None:
        super().__init__()
        self.shape, self.rope, self.attend = shape, architecture.rope, attend
        width, queries, keys = (
            architecture.width,
            shape.heads * shape.head_dim,
            shape.kv_heads * shape.head_dim,
        )
        self.q_proj = nn.Linear(width, queries, bias=shape.qkv_bias)
        self.k_proj = nn.Linear(width, keys, bias=shape.qkv_bias)
        self.v_proj = nn.Linear(width, keys, bias=shape.qkv_bias)
        for projection in (self.q_proj, self.k_proj, self.v_proj) if shape.qkv_bias else ():
            nn.init.zeros_(projection.bias)
        self.o_proj = nn.Linear(queries, width, bias=False)
        self.q_norm = self.k_norm = None
        if shape.qk_norm != "none":
            whole = shape.qk_norm == "full"
            self.q_norm = RMSNorm(queries if whole else shape.head_dim, eps=architecture.norm_eps)
            self.k_norm = RMSNorm(keys if whole else shape.head_dim, eps=architecture.norm_eps)

    def _project(self, x: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, W] -> q [B, T, H, D], k and v [B, T, Hkv, D], with q and k normalized.

        positions: [B or 1, T], by which q and k are rotated; None for not at all.
        """
        q, k, v = self.project_each(x)
        if self.q_norm is not None and self.k_norm is not None and self.shape.qk_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.unflatten(-1, (-1, self.shape.head_dim)) for y in (q, k, v))
        if self.q_norm is not None and self.k_norm is not None and self.shape.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None and positions is not None:
            turn = turn_at(positions, self.rope.theta, self.rope.scaling, self.shape.head_dim)
            q, k = rotated(turn, q), rotated(turn, k)
        return q, k, v

    def _allowed(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Whether a query may see a key: [B, T, S].

        queries: their positions [B, T].
        keys: their positions [B, S], negative for an empty slot.
        """
        distance = queries[:, :, None] - keys[:, None, :]
        allowed = (distance >= 0) & (keys >= 0)[:, None, :]
        return allowed if self.shape.window is None else allowed & (distance < self.shape.window)

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        tokens = x.shape[1]
        positions = torch.arange(tokens, device=x.device)[None]
        if position is not None:
            positions = positions + position[:, None]
        q, k, v = self._project(x, positions)
        if state is None or position is None or length == 0:
            whole = self.shape.window is None or self.shape.window >= tokens
            if self.attend.causal is not None:
                out = self.attend.causal(q, k, v, None if whole else self.shape.window)
            else:
                out = self.attend.masked(q, k, v, None if whole else self._allowed(positions, positions))
        elif self.attend.cached is not None and self.shape.window is None:
            return self._output(self.attend.cached(q, k, v, state, position))
        else:
            slots = min(length, state["key"].shape[1])
            before = _slot_positions(position, state["key"].shape[1])[:, :slots]
            allowed = self._allowed(positions, torch.cat([before, positions], 1))
            k_seen, v_seen = (
                torch.cat([state[name][:, :slots], new], 1) for name, new in (("key", k), ("value", v))
            )
            out = self.attend.masked(q, k_seen, v_seen, allowed)
        if state is not None:
            kept = min(tokens, state["key"].shape[1])
            _write(state, k[:, -kept:], v[:, -kept:], positions[:, -kept:])
        return self._output(out)

    def _output(self, out: Tensor) -> Tensor:
        y: Tensor = self.o_proj(out.flatten(2))
        return y

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        x, positions = x[:, None], position[:, None]
        if self.shape.window is None and self.rope is not None and self.attend.rotated is not None:
            return self._output(self.attend.rotated(*self._project(x, None), state, position, self.rope))[
                :, 0
            ]
        q, k, v = self._project(x, positions)
        if self.shape.window is None and self.attend.cached is not None:
            return self._output(self.attend.cached(q, k, v, state, position))[:, 0]
        _write(state, k, v, positions)
        if self.attend.ring is not None:
            return self._output(self.attend.ring(q, state, position))[:, 0]
        allowed = self._allowed(positions, _slot_positions(position + 1, state["key"].shape[1]))
        return self._output(self.attend.masked(q, state["key"], state["value"], allowed))[:, 0]


def _slot_positions(count: Tensor, slots: int) -> Tensor:
    """The position that each slot holds after `count` [B] tokens, negative for an empty slot: [B, S]."""
    last = count[:, None] - 1
    return last - (last - torch.arange(slots, device=count.device)) % slots


def _write(state: State, k: Tensor, v: Tensor, positions: Tensor) -> None:
    """Writes k and v [B, T, Hkv, D] of these positions [B or 1, T] into the caches."""
    slots = (positions % state["key"].shape[1])[..., None, None].expand(k.shape[0], -1, *k.shape[2:])
    for name, new in (("key", k), ("value", v)):
        state[name].scatter_(1, slots, new.to(state[name].dtype))


def state_spec(
    shape: AttentionShape, batch: int, max_length: int, dtype: torch.dtype
) -> dict[str, TensorSpec]:
    slots = min(max_length, shape.window or max_length)
    spec = TensorSpec((batch, slots, shape.kv_heads, shape.head_dim), dtype)
    return {"key": spec, "value": spec}


def parameters(width: int, shape: AttentionShape) -> int:
    norms = {"none": 0, "head": 2 * shape.head_dim, "full": (shape.heads + shape.kv_heads) * shape.head_dim}
    biases = shape.qkv_bias * (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    return 2 * width * (shape.heads + shape.kv_heads) * shape.head_dim + norms[shape.qk_norm] + biases


def flops(width: int, shape: AttentionShape, context: int) -> int:
    seen = min(context, shape.window or context)
    return (
        4 * width * (shape.heads + shape.kv_heads) * shape.head_dim + 4 * seen * shape.heads * shape.head_dim
    )


OPERATOR = Operator(
    symbol="a",
    kind="mixer",
    shape=AttentionShape,
    genes={"head_dim": (32, 64, 128), "group": (1, 2, 4), "qk_norm": ("none", "head"), "window": (None, 512)},
    parameters=parameters,
    flops=flops,
    build=Attention,
    backends={
        "flash_attn": Backend(load=load_flash_attn, refuses=refuses_flash_attn),
        "sdpa": Backend(load=lambda: Attend(masked=attend_sdpa)),
        "reference": Backend(load=lambda: Attend(masked=attend_reference)),
    },
    state=state_spec,
    source="Vaswani et al. 2017, arXiv 1706.03762; Ainslie et al. 2023, arXiv 2305.13245",
)
