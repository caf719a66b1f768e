"""SwiGLU feed-forward network: down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202)."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from operators.architecture import Architecture
from operators.operator import Operator, OperatorModule, Shape, State


class FeedForwardShape(Shape):
    """hidden: the inner width. Its gene `ratio` is hidden / width."""

    hidden: Annotated[int, Field(ge=1)]

    @classmethod
    def make(cls, width: int, *, ratio: float = 3.0) -> Self:
        return cls(hidden=round(ratio * width))

    def genes(self, width: int) -> dict[str, Any]:
        return {"ratio": self.hidden / width}


class SwiGLU(OperatorModule):
    reads: ClassVar = ("gate_proj", "up_proj")
    writes: ClassVar = ("down_proj",)
    joined: ClassVar = ("gate_proj", "up_proj")

    def __init__(self, width: int, shape: FeedForwardShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, width, bias=False)

    def forward(self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0) -> Tensor:
        gate, up = self.project_each(x)
        hidden = F.silu(gate) * up
        out: Tensor = self.down_proj(hidden)
        return out

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        return self.forward(x)


def build(architecture: Architecture, shape: FeedForwardShape, kernels: None) -> SwiGLU:
    return SwiGLU(architecture.width, shape)


OPERATOR = Operator(
    symbol="f",
    kind="feedforward",
    shape=FeedForwardShape,
    genes={"ratio": (2.0, 2.5, 3.0, 4.0)},
    parameters=lambda width, shape: 3 * width * shape.hidden,
    flops=lambda width, shape, context: 6 * width * shape.hidden,
    build=build,
    source="Shazeer 2020, arXiv 2002.05202",
)
