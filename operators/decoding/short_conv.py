"""The fused step of the gated short convolution: three kernels."""

from torch import Tensor, nn

from operators.kernels.convolution_step import MOST_TAPS
from operators.kernels.products import product
from operators.kernels.short_convolution_step import short_convolution_step
from operators.library.short_conv import ShortConv, ShortConvShape
from operators.operator import FusedStep, State


def refuses(shape: ShortConvShape) -> str | None:
    return f"convolves over up to {MOST_TAPS} tokens, got {shape.conv}" if shape.conv > MOST_TAPS else None


def step(operator: ShortConv, norm: nn.Module, x: Tensor, state: State, position: Tensor) -> bool:
    projected = product(x, operator.in_proj.weight, norm=norm)
    out = short_convolution_step(projected, state["conv"], weight=operator.conv.weight)
    product(out, operator.out_proj.weight, onto=x)
    return True


STEP = FusedStep(step, refuses)
