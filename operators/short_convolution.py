"""Depthwise causal convolution over a few tokens, which the recurrent operators put before their recurrence."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators.operator import TensorSpec


class ShortConvolution(nn.Module):
    """Every channel by itself: silu(Σ_k weight[c, k] · x[t - K + 1 + k, c] + bias[c]).

    State: the last K - 1 inputs [B, C, K - 1], oldest first, zeros where there was no token.
    """

    def __init__(self, channels: int, kernel: int, *, bias: bool = False, silu: bool = True) -> None:
        super().__init__()
        bound = kernel**-0.5
        self.weight = nn.Parameter(torch.empty(channels, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None
        self.silu = silu

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        """x [B, T, C] -> [B, T, C], continuing from `state` and updating it in place."""
        channels, kernel = self.weight.shape
        if state is None:
            x = F.pad(x, (0, 0, kernel - 1, 0))
        else:
            x = torch.cat([state.mT.to(x.dtype), x], 1)
            state.copy_(x[:, x.shape[1] - (kernel - 1) :].mT)
        # As an image of height one: only two-dimensional convolutions take the channels last, as they lie here.
        out = F.conv2d(x.mT[:, :, None], self.weight[:, None, None], self.bias, groups=channels).squeeze(2).mT
        return F.silu(out) if self.silu else out

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """x [B, C] -> [B, C]; `state` is updated in place."""
        window = torch.cat([state.to(x.dtype), x[..., None]], -1)
        state.copy_(window[..., 1:])
        out = (window * self.weight).sum(-1)
        out = out if self.bias is None else out + self.bias
        return F.silu(out) if self.silu else out


def conv_parameters(channels: int, kernel: int, *, bias: bool = False) -> int:
    """Number of parameters of a ShortConvolution."""
    return channels * (kernel + bias)


def conv_spec(batch: int, channels: int, kernel: int, dtype: torch.dtype) -> TensorSpec:
    """The state of a ShortConvolution."""
    return TensorSpec((batch, channels, kernel - 1), dtype)
