"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), halves rotated against one another as in Llama."""

import math
from functools import cache
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from operators.base.value import Value


class RopeScaling(Value):
    """How Llama 3.1 stretches rotary positions: frequencies that turn less than `low` times within `original_context` tokens are
    divided by `factor`, those that turn more than `high` times are kept, those between are mixed of both.
    """

    kind: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1)
    low: float = Field(default=1.0, gt=0)
    high: float = Field(default=4.0, gt=0)
    original_context: int = Field(default=8192, ge=1)

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"expected low below high, got low {self.low:g} and high {self.high:g}")
        return self


class Rope(Value):
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864)."""

    theta: float = Field(default=10_000.0, gt=0)
    scaling: RopeScaling | None = None


def rotate(x: Tensor, positions: Tensor, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Rotates x [B, T, H, D] by its positions [B or 1, T]; computed in float32, returned in x's dtype."""
    half = x.shape[-1] // 2
    angle = (positions[..., None].float() * frequencies(theta, scaling, half, x.device))[:, :, None, :]
    first, second = x.float().split(half, -1)
    rotated = torch.cat(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1
    )
    return rotated.to(x.dtype)


@cache
def frequencies(theta: float, scaling: RopeScaling | None, half: int, device: torch.device) -> Tensor:
    """Radians per position of each pair [D / 2], float32.

    Kept, because a decode step would otherwise spend a dozen small kernels a layer on this constant. A CUDA graph must be warmed
    up before it is captured, so that the kept tensor does not lie in the graph's own memory.
    """
    with torch.inference_mode(False):  # kept for training too, even if first asked for while decoding
        frequency = theta ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
        return frequency if scaling is None else _stretched(frequency, scaling)


def _stretched(frequency: Tensor, scaling: RopeScaling) -> Tensor:
    """Linear in the number of turns within the original context: all of frequency / factor up to `low`, all of frequency from `high`."""
    turns = scaling.original_context * frequency / (2 * math.pi)
    kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return kept * frequency + (1 - kept) * frequency / scaling.factor
