"""Depthwise causal convolution over a few tokens, which recurrent operators apply before their recurrence."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators.kernels.libraries import load
from operators.operator import TensorSpec


@dataclass(frozen=True)
class Convolution:
    """The kernels of a short convolution.

    scan: (x [B, T, C], weight [C, K], bias [C] or None, whether SiLU follows, state [B, C, K - 1] or None)
        -> [B, T, C]. The state is updated in place.
    step: the same for one token, x [B, C] -> [B, C], always with a state.
    """

    scan: Callable[[Tensor, Tensor, Tensor | None, bool, Tensor | None], Tensor]
    step: Callable[[Tensor, Tensor, Tensor | None, bool, Tensor], Tensor]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, state: Tensor | None) -> Tensor:
    """`Convolution.scan` in plain PyTorch."""
    channels, kernel = weight.shape
    if state is None:
        x = F.pad(x, (0, 0, kernel - 1, 0))
    else:
        x = torch.cat([state.mT.to(x.dtype), x], 1)
        state.copy_(x[:, x.shape[1] - (kernel - 1) :].mT)
    # An image of height one: only 2-dimensional convolutions take channels that lie last in memory.
    out = F.conv2d(x.mT[:, :, None], weight[:, None, None], bias, groups=channels).squeeze(2).mT
    return F.silu(out) if silu else out


def convolve_step(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, state: Tensor) -> Tensor:
    """`Convolution.step` in plain PyTorch."""
    window = torch.cat([state.to(x.dtype), x[..., None]], -1)
    state.copy_(window[..., 1:])
    out = (window * weight).sum(-1)
    out = out if bias is None else out + bias
    return F.silu(out) if silu else out


REFERENCE = Convolution(scan=convolve, step=convolve_step)


def load_causal_conv1d() -> Convolution:
    """The kernels of the library causal_conv1d. Raises ImportError."""
    library = load("causal_conv1d")

    def scan(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, state: Tensor | None) -> Tensor:
        kept = weight.shape[1] - 1
        # The library reads 8 numbers at a time; a slice of a wider tensor may be laid out differently.
        if x.stride(2) != 1 or x.stride(1) % 8 or x.stride(0) % 8 or x.storage_offset() % 8:
            x = x.contiguous()
        initial = None if state is None else state.to(x.dtype).mT.contiguous().mT
        out: Tensor = library.causal_conv1d_fn(
            x.mT, weight, bias, initial_states=initial, activation="silu" if silu else None
        ).mT
        if state is not None:
            last = x if x.shape[1] >= kept else torch.cat([state.mT.to(x.dtype), x], 1)
            state.copy_(last[:, last.shape[1] - kept :].mT)
        return out

    def step(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, state: Tensor) -> Tensor:
        out: Tensor = library.causal_conv1d_update(x, state, weight, bias, "silu" if silu else None)
        return out

    return Convolution(scan=scan, step=step)


def conv_refusal(channels: int, kernel: int) -> str | None:
    """Why causal_conv1d cannot serve this size; None where it can."""
    if not 2 <= kernel <= 4:
        return f"causal_conv1d convolves over 2 to 4 tokens, got {kernel}"
    if channels % 8:
        return f"causal_conv1d needs a multiple of 8 channels, got {channels}"
    return None


class ShortConvolution(nn.Module):
    """A convolution of each channel by itself: silu(Σ_k weight[c, k] · x[t - K + 1 + k, c] + bias[c]).

    State: the last K - 1 inputs [B, C, K - 1], the oldest first, zeros where there was no token.

    channels: C.
    kernel: K, tokens that an output sees.
    bias: whether there is one.
    silu: whether SiLU follows.
    kernels: that compute it; None for the reference.
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        *,
        bias: bool = False,
        silu: bool = True,
        kernels: Convolution | None = None,
    ) -> None:
        super().__init__()
        bound = kernel**-0.5
        self.weight = nn.Parameter(torch.empty(channels, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None
        self.silu = silu
        self.kernels = kernels or REFERENCE

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        """x [B, T, C] -> [B, T, C], continuing from `state` and updating it in place."""
        return self.kernels.scan(x, self.weight, self.bias, self.silu, state)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """x [B, C] -> [B, C]; `state` is updated in place."""
        return self.kernels.step(x, self.weight, self.bias, self.silu, state)


def conv_parameters(channels: int, kernel: int, *, bias: bool = False) -> int:
    """Number of parameters of a ShortConvolution."""
    return channels * (kernel + bias)


def conv_spec(batch: int, channels: int, kernel: int, dtype: torch.dtype) -> TensorSpec:
    """The state of a ShortConvolution."""
    return TensorSpec((batch, channels, kernel - 1), dtype)
