"""SwiGLU feed-forward network: down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202)."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from operators.kernels.libraries import load, refusal
from operators.operator import Backend, Operator, OperatorModule, State, Surroundings
from operators.shape import Shape

# (gate, up) -> silu(gate) * up, all of one shape.
Gated = Callable[[Tensor, Tensor], Tensor]


class FeedForwardShape(Shape):
    """The shape of a feed-forward network; its gene `ratio` is hidden / width.

    hidden: the inner width.
    """

    hidden: Annotated[int, Field(ge=1)]

    @classmethod
    def make(cls, width: int, *, ratio: float = 3.0) -> Self:
        return cls(hidden=round(ratio * width))

    def genes(self, width: int) -> dict[str, Any]:
        return {"ratio": self.hidden / width}


def gated_reference(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def load_fla() -> Gated:
    """The kernels of flash-linear-attention, one forward and one backward. Raises ImportError."""
    library = load("fla.modules.activations")

    def gated(gate: Tensor, up: Tensor) -> Tensor:
        out: Tensor = library.swiglu(gate, up)
        return out

    return gated


def refuses_fla(shape: FeedForwardShape, device: torch.device, dtype: torch.dtype) -> str | None:
    return refusal(device, dtype)


class SwiGLU(OperatorModule):
    """down(silu(gate(x)) * up(x)). It has no state."""

    reads: ClassVar = ("gate_proj", "up_proj")
    writes: ClassVar = ("down_proj",)
    joined: ClassVar = ("gate_proj", "up_proj")

    def __init__(self, width: int, shape: FeedForwardShape, gated: Gated) -> None:
        super().__init__()
        self.gated = gated
        self.gate_proj = nn.Linear(width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, width, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        gate, up = self.project_each(x)
        out: Tensor = self.down_proj(self.gated(gate, up))
        return out

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        return self.forward(x)


def build(architecture: Surroundings, shape: FeedForwardShape, kernels: Gated) -> SwiGLU:
    return SwiGLU(architecture.width, shape, kernels)


OPERATOR = Operator(
    symbol="f",
    kind="feedforward",
    shape=FeedForwardShape,
    genes={"ratio": (2.0, 2.5, 3.0, 4.0)},
    parameters=lambda width, shape: 3 * width * shape.hidden,
    flops=lambda width, shape, context: 6 * width * shape.hidden,
    build=build,
    backends={
        "fla": Backend(load=load_fla, refuses=refuses_fla),
        "reference": Backend(load=lambda: gated_reference),
    },
    source="Shazeer 2020, arXiv 2002.05202",
)
