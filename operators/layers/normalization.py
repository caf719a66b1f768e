"""Normalizations, computed in float32 and returned in the input's dtype."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """x / rms(x) * weight over groups of the last dimension (Zhang & Sennrich 2019, arXiv 1910.07467).

    size: of the last dimension.
    eps: added to the mean square.
    group: how many neighbours share a root mean square; None for all.
    """

    def __init__(self, size: int, *, eps: float, group: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self.group = group or size

    def forward(self, x: Tensor) -> Tensor:
        if (
            x.is_cuda and self.weight.dtype == x.dtype
        ):  # PyTorch has one kernel for this, which uses float32 too
            if self.group == self.weight.shape[0]:
                return F.rms_norm(x, (self.group,), self.weight, self.eps)
            return (
                F.rms_norm(x.unflatten(-1, (-1, self.group)), (self.group,), None, self.eps).flatten(-2)
                * self.weight
            )
        grouped: Tensor = x.float().unflatten(-1, (-1, self.group))
        normal = grouped * torch.rsqrt(grouped.pow(2).mean(-1, keepdim=True) + self.eps)
        return (normal.flatten(-2) * self.weight.float()).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """Layer normalization with weight and bias (Ba et al. 2016, arXiv 1607.06450)."""

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias.float() if self.bias is not None else None
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), bias, self.eps).to(x.dtype)


def build_norm(kind: str, width: int, eps: float) -> nn.Module:
    """The layer normalization of that name: `rmsnorm` or `layernorm`."""
    return RMSNorm(width, eps=eps) if kind == "rmsnorm" else LayerNorm(width, eps=eps)


def norm_parameters(kind: str, width: int) -> int:
    """Number of parameters of `build_norm(kind, width, …)`."""
    return width if kind == "rmsnorm" else 2 * width


def unit_rows(matrix: Tensor) -> Tensor:
    """The matrix with rows of unit length, computed in float32 and returned in the matrix's dtype."""
    return F.normalize(matrix.float(), dim=1).to(matrix.dtype)


def l2_normalized(x: Tensor) -> Tensor:
    """x / ‖x‖₂ over the last dimension, in float32; 1e-6 is added to the squared norm."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)
