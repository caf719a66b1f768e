"""The fused step of Mamba3: three kernels."""

from torch import Tensor, nn

from operators.kernels.mamba3_step import MOST_STATE, mamba3_step
from operators.kernels.products import product
from operators.library.mamba3 import WEAKEST, Mamba3, Mamba3Shape
from operators.operator import FusedStep, State


def refuses(shape: Mamba3Shape) -> str | None:
    if shape.head_dim * shape.state > MOST_STATE:
        got = f"{shape.head_dim} × {shape.state}"
        return f"takes heads with up to {MOST_STATE} numbers of state, got {got}"
    return None


def step(operator: Mamba3, norm: nn.Module, x: Tensor, state: State, position: Tensor) -> bool:
    out = mamba3_step(
        product(x, operator.in_proj.weight, norm=norm),
        state,
        B_norm=operator.B_norm,
        C_norm=operator.C_norm,
        B_bias=operator.B_bias,
        C_bias=operator.C_bias,
        dt_bias=operator.dt_bias,
        D=operator.D,
        groups=operator.shape.groups,
        weakest=WEAKEST,
    )
    product(out, operator.out_proj.weight, onto=x)
    return True


STEP = FusedStep(step, refuses)
