"""DeltaNet: linear attention corrected by the delta rule (Yang et al. 2024, arXiv 2406.06484)."""

from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from operators.kernels.libraries import load, refusal
from operators.layers.delta_rule import chunked_delta_rule, delta_rule_flops, delta_rule_step, load_fla_step
from operators.layers.normalization import RMSNorm, l2_normalized
from operators.layers.recurrence import Recurrence
from operators.layers.short_convolution import (
    ShortConvolution,
    conv_parameters,
    conv_refusal,
    conv_spec,
    load_causal_conv1d,
)
from operators.operator import Backend, Operator, OperatorModule, State, Surroundings, TensorSpec
from operators.shape import Shape


class DeltaNetShape(Shape):
    """Heads of one size after a convolution.

    heads: how many.
    head_dim: size of a query, a key and a value.
    conv: tokens that the convolution sees.
    """

    heads: Annotated[int, Field(ge=1)]
    head_dim: Annotated[int, Field(ge=1)]
    conv: Annotated[int, Field(ge=2)] = 4

    @classmethod
    def make(cls, width: int, *, head_dim: int = 64, expand: float = 1.0, conv: int = 4) -> Self:
        return cls(heads=max(1, round(expand * width / head_dim)), head_dim=head_dim, conv=conv)

    def genes(self, width: int) -> dict[str, Any]:
        return {"head_dim": self.head_dim, "expand": self.inner / width, "conv": self.conv}

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim


def scan_reference(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The delta rule over a sequence, see `chunked_delta_rule`.

    q, k, v: [B, T, H, D]; q and k have no unit length yet.
    beta: [B, T, H] before its sigmoid.
    initial: the state before [B, H, D, D]; None for zeros.
    """
    return chunked_delta_rule(l2_normalized(q), l2_normalized(k), v, beta.sigmoid(), None, initial)


def step_reference(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """One token of `scan_reference`; its arguments have no dimension T."""
    return delta_rule_step(l2_normalized(q), l2_normalized(k), v, beta.sigmoid(), None, state)


def load_fla() -> Recurrence:
    """The kernels of flash-linear-attention. Raises ImportError."""
    library = load("fla.ops.delta_rule")

    def scan(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
        out, final = library.chunk_delta_rule(
            q,
            k,
            v,
            beta.sigmoid(),
            initial_state=initial,
            output_final_state=initial is not None,
            use_qk_l2norm_in_kernel=True,
        )
        return out, final

    return Recurrence(scan=scan, step=load_fla_step(), convolution=load_causal_conv1d())


def refuses_fla(shape: DeltaNetShape, device: torch.device, dtype: torch.dtype) -> str | None:
    if shape.head_dim > 256:
        return f"fla takes a head_dim of up to 256 for the delta rule, got {shape.head_dim}"
    return refusal(device, dtype) or conv_refusal(3 * shape.inner, shape.conv)


class DeltaNet(OperatorModule):
    """The delta rule after a convolution.

    State: `recurrent` [B, H, D, D] (keys × values, float32), and `conv` [B, 3·H·D, conv - 1]
    for q, k and v side by side.
    """

    reads: ClassVar = ("q_proj", "k_proj", "v_proj", "b_proj")
    writes: ClassVar = ("o_proj",)
    joined: ClassVar = ("q_proj", "k_proj", "v_proj")
    beside: ClassVar = ("b_proj",)

    def __init__(self, architecture: Surroundings, shape: DeltaNetShape, delta_rule: Recurrence) -> None:
        super().__init__()
        self.shape, self.delta_rule = shape, delta_rule
        width = architecture.width
        self.q_proj = nn.Linear(width, shape.inner, bias=False)
        self.k_proj = nn.Linear(width, shape.inner, bias=False)
        self.v_proj = nn.Linear(width, shape.inner, bias=False)
        self.b_proj = nn.Linear(width, shape.heads, bias=False)
        self.conv = ShortConvolution(
            3 * shape.inner, shape.conv, kernels=delta_rule.convolution if delta_rule else None
        )
        self.o_norm = RMSNorm(shape.head_dim, eps=architecture.norm_eps)
        self.o_proj = nn.Linear(shape.inner, width, bias=False)

    def _project(self, x: Tensor) -> Tensor:
        return self.project(x)

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """qkv […, 3·H·D] -> q, k and v, each […, H, D]."""
        q, k, v = qkv.unflatten(-1, (3, self.shape.heads, self.shape.head_dim)).unbind(-3)
        return q, k, v

    def _output(self, x: Tensor, out: Tensor) -> Tensor:
        y: Tensor = self.o_proj(self.o_norm(out.to(x.dtype)).flatten(-2))
        return y

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        q, k, v = self._heads(self.conv(self._project(x), state["conv"] if state else None))
        out, final = self.delta_rule.scan(q, k, v, self.b_proj(x), state["recurrent"] if state else None)
        if state:
            state["recurrent"].copy_(final)
        return self._output(x, out)

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        q, k, v = self._heads(self.conv.step(self._project(x), state["conv"]))
        return self._output(x, self.delta_rule.step(q, k, v, self.b_proj(x), state["recurrent"]))


def state_spec(
    shape: DeltaNetShape, batch: int, max_length: int, dtype: torch.dtype
) -> dict[str, TensorSpec]:
    return {
        "recurrent": TensorSpec((batch, shape.heads, shape.head_dim, shape.head_dim), torch.float32),
        "conv": conv_spec(batch, 3 * shape.inner, shape.conv, dtype),
    }


def parameters(width: int, shape: DeltaNetShape) -> int:
    return (
        width * (4 * shape.inner + shape.heads)
        + conv_parameters(3 * shape.inner, shape.conv)
        + shape.head_dim
    )


def flops(width: int, shape: DeltaNetShape, context: int) -> int:
    matrices = 2 * width * (4 * shape.inner + shape.heads) + 2 * 3 * shape.inner * shape.conv
    return matrices + delta_rule_flops(shape.heads, shape.head_dim, shape.head_dim, decay=False)


OPERATOR = Operator(
    symbol="d",
    kind="mixer",
    shape=DeltaNetShape,
    genes={"head_dim": (32, 64, 128), "expand": (0.75, 1.0, 1.5)},
    parameters=parameters,
    flops=flops,
    build=DeltaNet,
    backends={
        "fla": Backend(load=load_fla, refuses=refuses_fla),
        "reference": Backend(load=lambda: Recurrence(scan=scan_reference, step=step_reference)),
    },
    state=state_spec,
    source="Yang et al. 2024, arXiv 2406.06484",
)
