"""The fused step of Mamba2: three kernels."""

import torch
from torch import Tensor, nn

from operators.kernels.convolution_step import MOST_TAPS
from operators.kernels.mamba2_step import mamba2_step
from operators.kernels.products import product
from operators.library.mamba2 import Mamba2, Mamba2Shape
from operators.operator import FusedStep, State, TensorSpec


def refuses(shape: Mamba2Shape) -> str | None:
    return f"convolves over up to {MOST_TAPS} tokens, got {shape.conv}" if shape.conv > MOST_TAPS else None


def counters(shape: Mamba2Shape, batch: int) -> dict[str, TensorSpec]:
    return {"arrived": TensorSpec((batch, shape.groups), torch.int32)}


def step(operator: Mamba2, norm: nn.Module, x: Tensor, state: State, position: Tensor) -> bool:
    projected = product(x, operator.in_proj.weight, norm=norm)
    conv = operator.conv
    assert conv.bias is not None
    gated = mamba2_step(
        projected,
        state,
        conv_weight=conv.weight,
        conv_bias=conv.bias,
        A_log=operator.A_log,
        D=operator.D,
        dt_bias=operator.dt_bias,
        groups=operator.shape.groups,
    )
    if operator.shape.groups == 1:
        product(gated, operator.out_proj.weight, norm=operator.norm, onto=x)
    else:
        product(operator.norm(gated), operator.out_proj.weight, onto=x)
    return True


STEP = FusedStep(step, refuses, counters)
