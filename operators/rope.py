"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), halves rotated against one another as in Llama."""

import torch
from torch import Tensor


def rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotates x [B, T, H, D] by its positions [B or 1, T]; computed in float32, returned in x's dtype."""
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = (positions[..., None].float() * frequency)[:, :, None, :]
    first, second = x.float().split(half, -1)
    rotated = torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)
    return rotated.to(x.dtype)
