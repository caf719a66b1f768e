"""The fused steps of DeltaNet, Gated DeltaNet and KDA: three kernels."""

from torch import Tensor, nn

from operators.kernels.convolution_step import MOST_TAPS
from operators.kernels.delta_rule_step import MOST_STATE, MOST_UP_WEIGHTS, delta_rule_step
from operators.kernels.products import product
from operators.library.deltanet import DeltaNet, DeltaNetShape
from operators.library.gated_deltanet import GatedDeltaNet, GatedDeltaNetShape
from operators.library.kda import KDA, KDAShape
from operators.operator import FusedStep, State


def refuses(shape: DeltaNetShape | GatedDeltaNetShape) -> str | None:
    if shape.conv > MOST_TAPS:
        return f"convolves over up to {MOST_TAPS} tokens, got {shape.conv}"
    if isinstance(shape, GatedDeltaNetShape):
        key, value = shape.key_dim, shape.value_dim
    else:
        key = value = shape.head_dim
    if key * value > MOST_STATE:
        return f"takes heads with up to {MOST_STATE} numbers of state, got {key} × {value}"
    if isinstance(shape, KDAShape) and (key + value) * value > MOST_UP_WEIGHTS:
        most = f"up to {MOST_UP_WEIGHTS} weights of low rank for a head"
        return f"takes {most}, got ({key} + {value}) × {value}"
    return None


def step(
    operator: DeltaNet | GatedDeltaNet | KDA, norm: nn.Module, x: Tensor, state: State, position: Tensor
) -> bool:
    joined = operator.together()
    if joined is None:
        return False
    decay, low_rank, negative = None, None, False
    if not isinstance(operator, DeltaNet):
        decay, negative = (operator.A_log, operator.dt_bias), operator.shape.negative_eigenvalues
    if isinstance(operator, KDA):
        low_rank = operator.decay_up_proj.weight, operator.gate_up_proj.weight
    out = delta_rule_step(
        product(x, joined.weight, norm=norm),
        state,
        conv_weight=operator.conv.weight,
        norm=operator.o_norm,
        decay=decay,
        low_rank=low_rank,
        negative=negative,
    )
    product(out, operator.o_proj.weight, onto=x)
    return True


STEP = FusedStep(step, refuses)
