"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), in halves of a head as in Llama."""

import math
from functools import cache
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from operators.base.value import Value


class RopeScaling(Value):
    """How Llama 3.1 stretches rotary positions: slow frequencies are divided by a factor, fast ones are kept.

    kind: the only kind there is.
    factor: that slow frequencies are divided by.
    low: a frequency is slow if it turns less often than this within the original context.
    high: a frequency is fast if it turns more often than this; one between is a mixture of both.
    original_context: tokens that the model was first trained on.
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
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864).

    theta: the base of the frequencies.
    scaling: how positions are stretched; None for not at all.
    """

    theta: float = Field(default=10_000.0, gt=0)
    scaling: RopeScaling | None = None


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
