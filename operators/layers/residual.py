"""The residual connection around an operator, with its normalization before or after the operator."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from operators.architecture import Layer
from operators.kernels.libraries import load
from operators.layers.normalization import RMSNorm, build_norm
from operators.operator import MOST_FUSED_ROWS, FusedStep, OperatorModule, State

# add_norm(norm, x [B, W], change [B, W] or None) -> x + change and norm(x + change).
AddNorm = Callable[[nn.Module, Tensor, Tensor | None], tuple[Tensor, Tensor]]
_LARGEST_FUSED_BYTES = 65_536  # of one token: the library's kernel holds a whole one in registers
_NARROWEST_FUSED = 513  # for a smaller width the library has another kernel, which takes long to tune


def add_norm_reference(norm: nn.Module, x: Tensor, change: Tensor | None) -> tuple[Tensor, Tensor]:
    """An `AddNorm` in plain PyTorch."""
    total = x if change is None else x + change
    return total, norm(total)


def load_add_norm() -> AddNorm:
    """Sum and normalization in one kernel of flash-linear-attention. Raises ImportError."""
    library = load("fla.modules.layernorm")

    def add_norm(norm: Any, x: Tensor, change: Tensor | None) -> tuple[Tensor, Tensor]:
        normalize, bias = (
            (library.rms_norm, None) if isinstance(norm, RMSNorm) else (library.layer_norm, norm.bias)
        )
        if change is None:
            return x, normalize(x, norm.weight, bias, eps=norm.eps)
        normal, total = normalize(change, norm.weight, bias, residual=x, eps=norm.eps, prenorm=True)
        return total, normal

    return add_norm


def best_add_norm(width: int, device: torch.device, dtype: torch.dtype) -> AddNorm:
    """The fused kernel where it can be used and is quickly tuned, else plain PyTorch."""
    if device.type != "cuda" or width < _NARROWEST_FUSED or width * dtype.itemsize > _LARGEST_FUSED_BYTES:
        return add_norm_reference
    try:
        return load_add_norm()
    except ImportError:
        return add_norm_reference


class ResidualLayer(nn.Module):
    """An operator with its normalization and the residual connection around both."""

    def __init__(
        self,
        layer: Layer,
        operator: OperatorModule,
        width: int,
        eps: float,
        add_norm: AddNorm,
        fused: FusedStep | None = None,
    ) -> None:
        super().__init__()
        self.norm = build_norm(layer.norm, width, eps)
        self.operator = operator
        self.before = layer.norm_position == "before"
        self.add_norm = add_norm
        self.fused = fused

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        change: Tensor
        if self.before:
            change = self.operator(self.norm(x), state, position, length)
        else:
            change = self.norm(self.operator(x, state, position, length))
        return x + change

    def step(
        self, x: Tensor, change: Tensor | None, state: State, position: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """One token -> the arguments x and change for the next layer.

        The next layer adds `change` to `x`, since one kernel can add and normalize at once.

        x: the residual stream [B, W].
        change: what the layer before adds to it [B, W]; None for nothing.
        state: of the operator, changed in place.
        position: tokens that each row of the state holds [B].
        """
        if self.fused is not None and self.before and x.shape[0] <= MOST_FUSED_ROWS:
            x, change = x if change is None else x + change, None
            if self.fused.step(self.operator, self.norm, x, state, position):
                return x, None
        if self.before:
            x, normal = self.add_norm(self.norm, x, change)
            return x, self.operator.step(normal, state, position)
        x = x if change is None else x + change
        return x, self.norm(self.operator.step(x, state, position))
