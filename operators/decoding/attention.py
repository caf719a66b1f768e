"""The fused step of attention: three kernels."""

from typing import Any

import torch
from torch import Tensor, nn

from operators.kernels.attention_step import attend
from operators.kernels.products import product
from operators.layers.rope import frequencies
from operators.library.attention import Attention, AttentionShape
from operators.operator import FusedStep, State, TensorSpec

# Sizes that the kernel was written and tried for.
_SMALLEST_HEAD, _LARGEST_HEAD, _LARGEST_GROUP = 32, 256, 16


def refuses(shape: AttentionShape) -> str | None:
    if not _SMALLEST_HEAD <= shape.head_dim <= _LARGEST_HEAD or shape.head_dim % 8:
        sizes = f"from {_SMALLEST_HEAD} to {_LARGEST_HEAD} in multiples of 8"
        return f"takes a head_dim {sizes}, got {shape.head_dim}"
    group = shape.heads // shape.kv_heads
    if group > _LARGEST_GROUP:
        return f"takes up to {_LARGEST_GROUP} query heads for each of kv_heads, got {group}"
    if shape.qk_norm == "full":
        return "normalizes queries and keys by head, got qk_norm full"
    return None


def counters(shape: AttentionShape, batch: int) -> dict[str, TensorSpec]:
    return {"arrived": TensorSpec((batch, shape.kv_heads), torch.int32)}


def step(operator: Attention, norm: nn.Module, x: Tensor, state: State, position: Tensor) -> bool:
    joined: Any = operator.together()
    if joined is None:
        return False
    shape, rope = operator.shape, operator.rope
    qkv = product(x, joined.weight, norm=norm, bias=joined.bias)
    turns = None if rope is None else frequencies(rope.theta, rope.scaling, shape.head_dim // 2, x.device)
    out = attend(
        qkv,
        state,
        position,
        heads=shape.heads,
        frequencies=turns,
        q_norm=operator.q_norm,
        k_norm=operator.k_norm,
    )
    product(out, operator.o_proj.weight, onto=x)
    return True


STEP = FusedStep(step, refuses, counters)
