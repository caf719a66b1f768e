"""The fused step of RWKV7: four kernels."""

from torch import Tensor, nn

from operators.kernels.products import product
from operators.kernels.rwkv7_step import MOST_HELD, held, rwkv7_step
from operators.kernels.token_shift import token_shift
from operators.library.rwkv7 import RWKV7, STRONGEST, RWKV7Shape
from operators.operator import FusedStep, State


def refuses(shape: RWKV7Shape) -> str | None:
    ranks = (shape.decay_rank, shape.a_rank, shape.gate_rank)
    if (registers := held(shape.head_dim, ranks)) > MOST_HELD:
        most = f"up to {MOST_HELD} registers of state and projections from low ranks for a head"
        sizes = " + ".join(map(str, ranks))
        return f"takes {most}, got {registers} with head_dim {shape.head_dim} and ranks of {sizes}"
    return None


def step(operator: RWKV7, norm: nn.Module, x: Tensor, state: State, position: Tensor) -> bool:
    together = operator.together()
    if together is None:
        return False
    mixed = token_shift(x, state["shift"], operator.mix, norm=norm)
    out = rwkv7_step(
        product(mixed, together.weight, parts=tuple(together.sizes)),
        state,
        decay=operator.decay_up_proj,
        a=operator.a_up_proj,
        gate=operator.gate_up_proj,
        k_k=operator.k_k,
        k_a=operator.k_a,
        r_k=operator.r_k,
        norm=operator.o_norm,
        strongest=STRONGEST,
    )
    product(out, operator.o_proj.weight, onto=x)
    return True


STEP = FusedStep(step, refuses)
