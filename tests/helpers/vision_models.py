"""Small vision-language models: as values, and of transformers' classes with random weights."""

from typing import Any

import torch
from torch import nn

from operators import VisionLanguage

PLACEHOLDER = 5


def tower(**changes: Any) -> dict[str, Any]:
    return {"image_size": 16, "patch_size": 4, "width": 24, "depth": 2, "heads": 3, "hidden": 40, **changes}


def vision_language(
    *,
    projector: dict[str, Any] | None = None,
    language: dict[str, Any] | None = None,
    image_token: int = PLACEHOLDER,
    **of_tower: Any,
) -> VisionLanguage:
    """A model with 16 patches in 4 image tokens."""
    return VisionLanguage.parse(
        {
            "tower": tower(**of_tower),
            "projector": {"pixel_shuffle": 2, **(projector or {})},
            "language": {"width": 32, "vocabulary": 50, "layers": "m f a f", **(language or {})},
            "image_token": image_token,
        }
    )


def drawn(model: nn.Module) -> nn.Module:
    """The model with random values in every parameter, so that one that is missing or swapped is noticed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
    return model
