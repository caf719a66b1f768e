"""The fused steps of GLA and RetNet: three kernels."""

from torch import Tensor, nn

from operators.kernels.linear_attention_step import MOST_STATE, linear_attention_step
from operators.kernels.products import product
from operators.layers.rope import frequencies
from operators.library.gla import GATE_TEMPERATURE, GLA, GLAShape
from operators.library.retnet import THETA, RetNet, RetNetShape
from operators.operator import FusedStep, State


def refuses(shape: GLAShape | RetNetShape) -> str | None:
    key, value = shape.key_dim, shape.value_dim
    if key * value > MOST_STATE:
        return f"takes heads with up to {MOST_STATE} numbers of state, got {key} × {value}"
    return None


def step(operator: GLA | RetNet, norm: nn.Module, x: Tensor, state: State, position: Tensor) -> bool:
    joined = operator.together()
    if joined is None:
        return False
    decay, rotation = None, None
    if isinstance(operator, GLA):
        decay = (operator.decay_up_proj.weight, operator.decay_up_proj.bias, GATE_TEMPERATURE)
    else:
        rotation = (position, frequencies(THETA, None, operator.shape.key_dim // 2, x.device))
    projected = product(x, joined.weight, norm=norm)
    out = linear_attention_step(projected, state, norm=operator.o_norm, decay=decay, rotation=rotation)
    product(out, operator.o_proj.weight, onto=x)
    return True


STEP = FusedStep(step, refuses)
