"""Gated short convolution: the mixer of LFM2 (Liquid AI 2025, arXiv 2511.23404), with a short memory."""

from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from operators.kernels.libraries import refusal
from operators.layers.short_convolution import (
    REFERENCE,
    Convolution,
    ShortConvolution,
    conv_parameters,
    conv_refusal,
    conv_spec,
    load_causal_conv1d,
)
from operators.operator import Backend, Operator, OperatorModule, State, Surroundings, TensorSpec
from operators.shape import Shape


class ShortConvShape(Shape):
    """Channels, each convolved by itself.

    channels: how many.
    conv: tokens that the convolution sees.
    """

    channels: Annotated[int, Field(ge=1)]
    conv: Annotated[int, Field(ge=2)] = 3

    @classmethod
    def make(cls, width: int, *, expand: float = 1.0, conv: int = 3) -> Self:
        return cls(channels=max(1, round(expand * width)), conv=conv)

    def genes(self, width: int) -> dict[str, Any]:
        return {"expand": self.channels / width, "conv": self.conv}


class ShortConv(OperatorModule):
    """c ⊙ conv(b ⊙ x), with projections b, c and x of the input. State: `conv` [B, C, conv - 1]."""

    reads: ClassVar = ("in_proj",)
    writes: ClassVar = ("out_proj",)

    def __init__(self, architecture: Surroundings, shape: ShortConvShape, kernels: Convolution) -> None:
        super().__init__()
        self.in_proj = nn.Linear(architecture.width, 3 * shape.channels, bias=False)
        self.conv = ShortConvolution(shape.channels, shape.conv, silu=False, kernels=kernels)
        self.out_proj = nn.Linear(shape.channels, architecture.width, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        b, c, x = self.in_proj(x).chunk(3, -1)
        y: Tensor = self.out_proj(c * self.conv(b * x, state["conv"] if state else None))
        return y

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        b, c, x = self.in_proj(x).chunk(3, -1)
        y: Tensor = self.out_proj(c * self.conv.step(b * x, state["conv"]))
        return y


def refuses_causal_conv1d(shape: ShortConvShape, device: torch.device, dtype: torch.dtype) -> str | None:
    return refusal(device, dtype) or conv_refusal(shape.channels, shape.conv)


def state_spec(
    shape: ShortConvShape, batch: int, max_length: int, dtype: torch.dtype
) -> dict[str, TensorSpec]:
    return {"conv": conv_spec(batch, shape.channels, shape.conv, dtype)}


def parameters(width: int, shape: ShortConvShape) -> int:
    return 4 * width * shape.channels + conv_parameters(shape.channels, shape.conv)


def flops(width: int, shape: ShortConvShape, context: int) -> int:
    return 8 * width * shape.channels + 2 * shape.channels * shape.conv


OPERATOR = Operator(
    symbol="c",
    kind="mixer",
    shape=ShortConvShape,
    genes={"expand": (0.75, 1.0, 1.5), "conv": (3, 4)},
    parameters=parameters,
    flops=flops,
    build=ShortConv,
    backends={
        "causal_conv1d": Backend(load=load_causal_conv1d, refuses=refuses_causal_conv1d),
        "reference": Backend(load=lambda: REFERENCE),
    },
    state=state_spec,
    source="LFM2 Technical Report, Liquid AI 2025, arXiv 2511.23404",
)
