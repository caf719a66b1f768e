"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), in halves of a head as in Llama."""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from operators.rope import RopeScaling


class Turn(NamedTuple):
    """By what the pairs of a head are turned: two factors [B or 1, T, 1, D] in float32.

    cos: of each pair's angle, once for either half of a head.
    sin: likewise, negative in the first half.
    """

    cos: Tensor
    sin: Tensor


def turn_at(positions: Tensor, theta: float, scaling: RopeScaling | None, size: int) -> Turn:
    """The turn of heads of `size` at positions [B or 1, T]."""
    return turn_by(positions[..., None].float() * frequencies(theta, scaling, size // 2, positions.device))


def turn_by(angles: Tensor) -> Turn:
    """The turn by angles [B or 1, T, D / 2]."""
    cos, sin = angles.cos()[:, :, None], angles.sin()[:, :, None]
    return Turn(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))


def rotated(turn: Turn, x: Tensor) -> Tensor:
    """Rotates x [B, T, H, D]; computed in float32, returned in x's dtype."""
    whole = x.float()
    first, second = whole.chunk(2, -1)
    return (whole * turn.cos + torch.cat([second, first], -1) * turn.sin).to(x.dtype)


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
