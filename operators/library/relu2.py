"""ReLU² feed-forward network: down(relu(up(x))²) (So et al. 2021, arXiv 2109.08668)."""

import importlib
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators.kernels.libraries import refusal
from operators.library.swiglu import FeedForwardShape
from operators.operator import Backend, Operator, OperatorModule, State, Surroundings

# x -> relu(x)², of the same shape.
Squared = Callable[[Tensor], Tensor]


def squared_reference(x: Tensor) -> Tensor:
    return F.relu(x).square()


def load_fused() -> Squared:
    """Our own kernels, one forward and one backward. Raises ImportError without Triton."""
    squared: Squared = importlib.import_module("operators.kernels.squared_relu").squared_relu
    return squared


def refuses_fused(shape: FeedForwardShape, device: torch.device, dtype: torch.dtype) -> str | None:
    return refusal(device, dtype)


class ReLU2(OperatorModule):
    """down(relu(up(x))²). It has no state."""

    reads: ClassVar = ("up_proj",)
    writes: ClassVar = ("down_proj",)

    def __init__(self, width: int, shape: FeedForwardShape, squared: Squared) -> None:
        super().__init__()
        self.squared = squared
        self.up_proj = nn.Linear(width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, width, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        out: Tensor = self.down_proj(self.squared(self.up_proj(x)))
        return out

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        return self.forward(x)


def build(architecture: Surroundings, shape: FeedForwardShape, kernels: Squared) -> ReLU2:
    return ReLU2(architecture.width, shape, kernels)


OPERATOR = Operator(
    symbol="r",
    kind="feedforward",
    shape=FeedForwardShape,
    genes={"ratio": (2.0, 3.0, 4.0)},
    parameters=lambda width, shape: 2 * width * shape.hidden,
    flops=lambda width, shape, context: 4 * width * shape.hidden,
    build=build,
    backends={
        "fused": Backend(load=load_fused, refuses=refuses_fused),
        "reference": Backend(load=lambda: squared_reference),
    },
    source="So et al. 2021, arXiv 2109.08668",
)
