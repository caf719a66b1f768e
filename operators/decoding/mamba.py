"""The fused step of Mamba: five kernels, as the convolution's output is projected before the state."""

from torch import Tensor, nn

from operators.kernels.convolution_step import MOST_TAPS
from operators.kernels.mamba_step import MOST_BESIDE, mamba_step
from operators.kernels.products import product
from operators.kernels.short_convolution_step import short_convolution_step
from operators.library.mamba import Mamba, MambaShape
from operators.operator import FusedStep, State


def refuses(shape: MambaShape) -> str | None:
    if shape.conv > MOST_TAPS:
        return f"convolves over up to {MOST_TAPS} tokens, got {shape.conv}"
    if max(shape.state, shape.dt_rank) > MOST_BESIDE:
        return f"takes a state and a dt_rank of up to {MOST_BESIDE}, got {shape.state} and {shape.dt_rank}"
    return None


def step(operator: Mamba, norm: nn.Module, x: Tensor, state: State, position: Tensor) -> bool:
    conv = operator.conv
    projected = product(x, operator.in_proj.weight, norm=norm)
    convolved = short_convolution_step(projected, state["conv"], weight=conv.weight, bias=conv.bias)
    gated = mamba_step(
        convolved,
        projected,
        product(convolved, operator.x_proj.weight),
        state["recurrent"],
        dt_up=operator.dt_proj.weight,
        dt_bias=operator.dt_proj.bias,
        A_log=operator.A_log,
        D=operator.D,
    )
    product(gated, operator.out_proj.weight, onto=x)
    return True


STEP = FusedStep(step, refuses)
