"""ReLU² feed-forward network: down(relu(up(x))²) (So et al. 2021, arXiv 2109.08668)."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from operators.library.swiglu import FeedForwardShape
from operators.operator import Operator, OperatorModule, State, Surroundings


class ReLU2(OperatorModule):
    """down(relu(up(x))²). It has no state."""

    reads: ClassVar = ("up_proj",)
    writes: ClassVar = ("down_proj",)

    def __init__(self, width: int, shape: FeedForwardShape) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, width, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        out: Tensor = self.down_proj(F.relu(self.up_proj(x)).square())
        return out

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        return self.forward(x)


def build(architecture: Surroundings, shape: FeedForwardShape, kernels: None) -> ReLU2:
    return ReLU2(architecture.width, shape)


OPERATOR = Operator(
    symbol="r",
    kind="feedforward",
    shape=FeedForwardShape,
    genes={"ratio": (2.0, 3.0, 4.0)},
    parameters=lambda width, shape: 2 * width * shape.hidden,
    flops=lambda width, shape, context: 4 * width * shape.hidden,
    build=build,
    source="So et al. 2021, arXiv 2109.08668",
)
