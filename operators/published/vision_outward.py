"""Writes a vision-language model as an LFM2-VL of `transformers`: the inverse of `vision_families`.

LFM2-VL is the class that reads any decoder of `transformers` behind a SigLIP 2 tower, pixel shuffle and two
matrices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from operators.base.errors import ArchitectureError
from operators.published.held import Held, hold
from operators.published.outward import published_tensors
from operators.published.vision_families import LANGUAGE, PublishedVision, describe_vision
from operators.vision.vision_language import CHANNELS, BlockNorm, VisionLanguage

FAMILY = "lfm2_vl"
CLASS = "Lfm2VlForConditionalGeneration"
# The first word of a decoder's tensors. The class does not pass on the states of decoders with another one.
_DECODER = "model."
_HEAD = "lm_head."


@dataclass(frozen=True)
class HeldVision:
    """A vision-language model as an LFM2-VL.

    config: its config.json.
    language: its language model.
    published: the same as it is read back.
    """

    config: Mapping[str, Any]
    language: Held
    published: PublishedVision


def hold_vision(value: VisionLanguage) -> HeldVision:
    """The model as an LFM2-VL.

    value: its language model is without meta tokens and with a plain head (see `folding.folded`).

    Raises ArchitectureError, which names every gene that the class does not have.
    """
    if lacks := _lacks(value):
        raise ArchitectureError(f"{FAMILY} holds no {'; no '.join(lacks)}")
    language = hold(value.language)
    if not all(name.startswith((_DECODER, _HEAD)) for name in _tensor_names(language)):
        raise ArchitectureError(f"{FAMILY}: language: expected no {language.family}, whose states it drops")
    tower, projector = value.tower, value.projector
    config = {
        "model_type": FAMILY,
        "architectures": [CLASS],
        "vision_config": {
            "model_type": "siglip2_vision_model",
            "hidden_size": tower.width,
            "intermediate_size": tower.hidden,
            "num_hidden_layers": tower.depth,
            "num_attention_heads": tower.heads,
            "num_channels": CHANNELS,
            "num_patches": tower.positions**2,
            "patch_size": tower.patch_size,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": tower.norm_eps,
            "vision_use_head": False,
        },
        "text_config": dict(language.config),
        "projector_hidden_act": "gelu",
        "projector_hidden_size": projector.hidden[0],
        "projector_bias": projector.bias,
        "projector_use_layernorm": projector.norm,
        "downsample_factor": projector.pixel_shuffle,
        "image_token_id": value.image_token,
        "max_image_tokens": value.image_tokens,
        "tie_word_embeddings": value.language.tied_embeddings,
    }
    published = describe_vision(config, where=FAMILY)
    if published.value.tower != tower or published.value.projector != projector:
        raise ArchitectureError(f"{FAMILY}: read back, tower or projector are others than {value.shorthand}")
    return HeldVision(config, language, published)


def published_vision_tensors(held: HeldVision, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names of the class.

    weights: of the whole model, by the names of our parameters.
    """
    text = {
        name.removeprefix(LANGUAGE): tensor for name, tensor in weights.items() if name.startswith(LANGUAGE)
    }
    tensors = {
        name.replace(_DECODER, held.published.prefix, 1) if name.startswith(_DECODER) else name: tensor
        for name, tensor in published_tensors(held.language, text).items()
    }
    for ours, theirs in held.published.names.items():
        tensor = weights[ours]
        if ours == "tower.patch_embedding.weight":  # the class has the colours of a pixel side by side
            size = held.published.value.tower.patch_size
            tensor = tensor.unflatten(-1, (CHANNELS, size, size)).permute(0, 2, 3, 1).flatten(1)
        elif ours == "tower.position":
            tensor = tensor.flatten(0, 1)
        tensors[theirs] = tensor.contiguous()
    return tensors


def _tensor_names(held: Held) -> list[str]:
    return [name for names in held.published.names.values() for name in names]


def _lacks(value: VisionLanguage) -> list[str]:
    """What the class does not have, each with the gene and its value."""
    tower, projector = value.tower, value.projector
    before = BlockNorm()
    wants = {
        "tower.feedforward": (tower.feedforward, "gelu"),
        "tower.bias": (tower.bias, True),
        "tower.qk_norm": (tower.qk_norm, "none"),
        "tower.final_norm": (tower.final_norm, "layernorm"),
        "tower.position_bias": (tower.position_bias, True),
        "tower.rope_theta": (tower.rope_theta, None),
        "projector.hidden": (len(projector.hidden), 1),
        "language.meta_tokens": (value.language.meta_tokens, 0),
    }
    lacks = [f"{gene} {has}" for gene, (has, wanted) in wants.items() if has != wanted]
    others = sum(norm != before for norm in tower.norms)
    return [*lacks, *([f"tower.norms but LayerNorm before, of {others} blocks"] if others else [])]
