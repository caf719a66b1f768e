"""The fused step of feed-forward networks: two kernels."""

from torch import Tensor, nn

from operators.kernels.products import product
from operators.library.relu2 import ReLU2
from operators.library.swiglu import SwiGLU
from operators.operator import FusedStep, State


def step(operator: SwiGLU | ReLU2, norm: nn.Module, x: Tensor, state: State, position: Tensor) -> bool:
    if isinstance(operator, ReLU2):
        hidden = product(x, operator.up_proj.weight, norm=norm, activation="relu2")
    else:
        joined = operator.together()
        if joined is None:
            return False
        hidden = product(x, joined.weight, norm=norm, activation="swiglu")
    product(hidden, operator.down_proj.weight, onto=x)
    return True


STEP = FusedStep(step)
