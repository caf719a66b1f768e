"""What a vision-language model costs by arithmetic: parameters, bytes and FLOPs. No model is built.

FLOPs are of matrices and attention alone, without normalizations, activations and additions, as those of
`operators.cost`. A multiply-add counts as 2.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch

from operators.cost import Cost, cost, parameters
from operators.layers.normalization import norm_parameters
from operators.vision.vision_language import CHANNELS, Model, VisionLanguage, VisionTower


@dataclass(frozen=True)
class VisionCost:
    """Exact costs of a batch of prompts, each with the same number of images of the tower's full size.

    params: number of parameters; a tied head counts once.
    tower_params, projector_params, language_params: the parts of `params`.
    param_bytes: bytes of the parameters.
    image_tokens: tokens of one image.
    prompt_tokens: tokens of one prompt, those of its images included.
    tower_flops, projector_flops: FLOPs for all images of the batch.
    language: costs of the language model at a context of `prompt_tokens`.
    """

    params: int
    tower_params: int
    projector_params: int
    language_params: int
    param_bytes: int
    image_tokens: int
    prompt_tokens: int
    tower_flops: int
    projector_flops: int
    language: Cost

    @property
    def first_token_flops(self) -> int:
        """FLOPs from the pixels to the logits after the prompt: tower, projector and prefill."""
        return self.tower_flops + self.projector_flops + self.language.prefill_flops


def vision_cost(
    value: VisionLanguage,
    *,
    batch: int = 1,
    text_tokens: int = 0,
    images: int = 1,
    dtype: torch.dtype = torch.float32,
) -> VisionCost:
    """The costs of a vision-language model at one point.

    batch: prompts.
    text_tokens: tokens of text in each prompt. With neither text nor an image there is one token.
    images: images in each prompt.
    dtype: of weights and activations.
    """
    tower, projector = tower_parameters(value.tower), projector_parameters(value)
    prompt = text_tokens + images * value.image_tokens
    language = cost(value.language, batch=batch, context=max(1, prompt), dtype=dtype)
    return VisionCost(
        params=tower + projector + language.params,
        tower_params=tower,
        projector_params=projector,
        language_params=language.params,
        param_bytes=(tower + projector) * dtype.itemsize + language.param_bytes,
        image_tokens=value.image_tokens,
        prompt_tokens=prompt,
        tower_flops=batch * images * tower_flops(value.tower),
        projector_flops=batch * images * value.image_tokens * projector_flops(value),
        language=language,
    )


def vision_parameters(value: VisionLanguage) -> int:
    """Number of parameters of the model that `value` describes."""
    return tower_parameters(value.tower) + projector_parameters(value) + parameters(value.language)


def parameters_of(model: Model) -> int:
    """Number of parameters of a model of either kind."""
    return vision_parameters(model) if isinstance(model, VisionLanguage) else parameters(model)


def memory_bytes_of(model: Model, batch: int, context: int, images: int, *, dtype: torch.dtype) -> int:
    """Bytes of a model's weights and of its state behind prompts of so many tokens of text and images."""
    if isinstance(model, VisionLanguage):
        costs = vision_cost(model, batch=batch, text_tokens=context, images=images, dtype=dtype)
        return costs.param_bytes + costs.language.state_bytes
    of_language = cost(model, batch=batch, context=context, dtype=dtype)
    return of_language.param_bytes + of_language.state_bytes


def tower_parameters(tower: VisionTower) -> int:
    """Number of parameters of a tower."""
    width, hidden, ups = tower.width, tower.hidden, 2 if tower.feedforward == "swiglu" else 1
    biases = tower.bias * (4 * width + ups * hidden + width)
    qk_norms = {"none": 0, "head": 2 * tower.head_dim, "full": 2 * width}[tower.qk_norm]
    block = 4 * width**2 + (ups + 1) * width * hidden + biases + qk_norms
    norms = sum(2 * norm_parameters(norm.norm, width) for norm in tower.norms)
    outside = CHANNELS * tower.patch_size**2 * width + width + tower.positions**2 * width
    return outside + tower.depth * block + norms + norm_parameters(tower.final_norm, width)


def tower_flops(tower: VisionTower) -> int:
    """FLOPs of a tower for one image of its full size. Every patch sees every patch."""
    patches, width = tower.grid**2, tower.width
    matrices = 4 * width**2 + (3 if tower.feedforward == "swiglu" else 2) * width * tower.hidden
    attention = 2 * patches * width
    return 2 * patches * (CHANNELS * tower.patch_size**2 * width + tower.depth * (matrices + attention))


def _widths(value: VisionLanguage) -> tuple[int, ...]:
    """Widths on the way through the projector."""
    return (value.joined_width, *value.projector.hidden, value.language.width)


def projector_parameters(value: VisionLanguage) -> int:
    """Number of parameters of a projector."""
    widths, bias = _widths(value), value.projector.bias
    matrices = sum((before + bias) * after for before, after in pairwise(widths))
    return matrices + (norm_parameters("layernorm", widths[0]) if value.projector.norm else 0)


def projector_flops(value: VisionLanguage) -> int:
    """FLOPs of a projector for one image token."""
    widths = _widths(value)
    return sum(2 * before * after for before, after in pairwise(widths))
