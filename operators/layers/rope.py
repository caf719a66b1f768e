"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), in halves of a head as in Llama."""

import math
from functools import cache

import torch
from torch import Tensor

from operators.rope import RopeScaling


def rotate(x: Tensor, positions: Tensor, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Rotates x [B, T, H, D] by its positions [B or 1, T]; computed in float32, returned in x's dtype."""
    half = x.shape[-1] // 2
    return rotate_by(x, positions[..., None].float() * frequencies(theta, scaling, half, x.device))


def rotate_by(x: Tensor, angles: Tensor) -> Tensor:
    """Rotates x [B, T, H, D] by angles [B or 1, T, D / 2]; computed in float32, returned in x's dtype."""
    angle, half = angles[:, :, None, :], x.shape[-1] // 2
    first, second = x.float().split(half, -1)
    rotated = torch.cat(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1
    )
    return rotated.to(x.dtype)


@cache
def frequencies(theta: float, scaling: RopeScaling | None, half: int, device: torch.device) -> Tensor:
    """Radians per position of each pair: [D / 2] float32.

    Kept, because a decode step would otherwise spend a dozen small kernels a layer on this constant.
    Before a CUDA graph is captured, a warm-up has to call this once. Else the kept tensor would lie
    in the graph's own memory.
    """
    with torch.inference_mode(False):  # training may use the tensor later, even if decoding asks for it first
        frequency = theta ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
        return frequency if scaling is None else _stretched(frequency, scaling)


def _stretched(frequency: Tensor, scaling: RopeScaling) -> Tensor:
    """The frequencies of a scaling; between `low` and `high` the mixture is linear in the number of turns."""
    turns = scaling.original_context * frequency / (2 * math.pi)
    kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return kept * frequency + (1 - kept) * frequency / scaling.factor
