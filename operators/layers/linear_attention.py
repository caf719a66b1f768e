"""Shared by operators of linear attention: heads with one matrix [K, V] each as state, and an output gate.

In the shapes of tensors K is the size of a key and V that of a value.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from operators.operator import TensorSpec
from operators.shape import Shape


class LinearAttentionShape(Shape):
    """Heads of a linear attention.

    heads: how many.
    key_dim: size of a query and of a key in each head.
    value_dim: size of a value in each head.
    """

    heads: Annotated[int, Field(ge=1)]
    key_dim: Annotated[int, Field(ge=1)]
    value_dim: Annotated[int, Field(ge=1)]

    @property
    def keys(self) -> int:
        """Size of the keys of all heads together."""
        return self.heads * self.key_dim

    @property
    def values(self) -> int:
        """Size of the values of all heads together."""
        return self.heads * self.value_dim


def gated_output(
    x: Tensor, out: Tensor, *, gate: nn.Module, norm: nn.Module, projection: nn.Module
) -> Tensor:
    """projection(norm(out) · silu(gate(x))): x […, W] and the recurrence's out […, H, V] -> […, W].

    gate: from the width to the values of all heads.
    norm: of each head's values.
    projection: from the values of all heads to the width.
    """
    y: Tensor = projection(norm(out.to(x.dtype)).flatten(-2) * F.silu(gate(x)))
    return y


def matrix_state(
    shape: LinearAttentionShape, batch: int, max_length: int, dtype: torch.dtype
) -> dict[str, TensorSpec]:
    """The state of an operator that keeps nothing else: `recurrent` [B, H, K, V] (float32)."""
    return {"recurrent": TensorSpec((batch, shape.heads, shape.key_dim, shape.value_dim), torch.float32)}


def matrix_state_flops(shape: LinearAttentionShape) -> int:
    """Forward FLOPs of the recurrence for one token: decay, write and read of the state."""
    return 5 * shape.keys * shape.value_dim
