"""Vision-language models of others: LFM2-VL and SmolVLM by their config.json, and their tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators.base.errors import DataError
from operators.published.families import Published, describe
from operators.published.keys import NEUTRAL, WITHOUT_EFFECT
from operators.published.settings import Settings
from operators.published.weights import fitted
from operators.vision.model import parameter_shapes
from operators.vision.vision_language import CHANNELS, VisionLanguage

GELU_TANH = ("gelu_pytorch_tanh",)
LANGUAGE = "language."

# Our parameter of a block -> the published tensor without `.weight` or `.bias`.
BLOCK = {
    "attention_norm": "layer_norm1",
    "attention.q_proj": "self_attn.q_proj",
    "attention.k_proj": "self_attn.k_proj",
    "attention.v_proj": "self_attn.v_proj",
    "attention.o_proj": "self_attn.out_proj",
    "feedforward_norm": "layer_norm2",
    "feedforward.up_proj": "mlp.fc1",
    "feedforward.down_proj": "mlp.fc2",
}


@dataclass(frozen=True)
class PublishedVision:
    """A published vision-language model in our terms.

    value: the model.
    names: the published tensor of each of our parameters outside of the language model.
    language: the language model, whose published tensors have `prefix` before their names.
    prefix: in the published names; `lm_head.weight` has none.
    patches_last: whether a published patch embedding has the three colours of a pixel side by side.
    """

    value: VisionLanguage
    names: Mapping[str, str]
    language: Published
    prefix: str
    patches_last: bool


@dataclass
class _Family:
    """What a family calls its parts.

    tower, projector, language: prefixes of their tensors.
    patches_last: see `PublishedVision`.
    read_tower: the fields of a tower that the family says otherwise than others.
    read_projector: the projector, and the published tensor of each of its parameters.
    image_token: id of the placeholder where the key is missing.
    """

    tower: str
    projector: str
    language: str
    patches_last: bool
    read_tower: Callable[[Settings, Settings], dict[str, Any]]
    read_projector: Callable[[Settings, Settings], tuple[dict[str, Any], dict[str, str]]]
    image_token: int
    text_defaults: Mapping[str, Any] = field(default_factory=dict)


def _lfm2_tower(config: Settings, tower: Settings) -> dict[str, Any]:
    """SigLIP 2 with images of any shape. Its processor makes images up to `max_image_tokens` tokens large."""
    tower.only("vision_use_head", False, True)  # the class never asks for what the head computes
    positions = tower.size("num_patches", default=256)
    grid = isqrt(positions)
    if grid * grid != positions:
        raise tower.error("num_patches", "a square", positions)
    # By default the processor makes at most 256 image tokens, which is 32 × 32 patches with a factor of 2.
    tokens = config.size("max_image_tokens", default=256)
    side = isqrt(tokens) * config.size("downsample_factor", default=2)
    return {"image_size": side * tower.size("patch_size", default=16), "position_grid": grid}


def _lfm2_projector(config: Settings, tower: Settings) -> tuple[dict[str, Any], dict[str, str]]:
    config.only("projector_hidden_act", "gelu")
    norm = config.flag("projector_use_layernorm", default=True)
    projector = {
        "pixel_shuffle": config.size("downsample_factor", default=2),
        "hidden": [config.size("projector_hidden_size", default=2560)],
        "norm": norm,
        "bias": config.flag("projector_bias", default=True),
    }
    named = {"matrices.0": "linear_1", "matrices.1": "linear_2", **({"norm": "layer_norm"} if norm else {})}
    return projector, named


def _smolvlm_tower(config: Settings, tower: Settings) -> dict[str, Any]:
    return {"image_size": tower.size("image_size", default=224)}


def _smolvlm_projector(config: Settings, tower: Settings) -> tuple[dict[str, Any], dict[str, str]]:
    projector = {"pixel_shuffle": config.size("scale_factor", default=2), "bias": False}
    return projector, {"matrices.0": "modality_projection.proj"}


FAMILIES = {
    "lfm2_vl": _Family(
        tower="model.vision_tower.",
        projector="model.multi_modal_projector.",
        language="model.language_model.",
        patches_last=True,
        read_tower=_lfm2_tower,
        read_projector=_lfm2_projector,
        image_token=396,
    ),
    "smolvlm": _Family(
        tower="model.vision_model.",
        projector="model.connector.",
        language="model.text_model.",
        patches_last=False,
        read_tower=_smolvlm_tower,
        read_projector=_smolvlm_projector,
        image_token=128_257,
        text_defaults={"model_type": "llama", "rms_norm_eps": 1e-5},
    ),
}
FAMILIES["idefics3"] = FAMILIES["smolvlm"]  # the first SmolVLMs have this name; the class is the same


def sees(config: Mapping[str, Any]) -> bool:
    """Whether the content of a config.json is that of a model that sees, of a family that is read here."""
    family = config.get("model_type")
    return isinstance(family, str) and family in FAMILIES


TOWER_DEFAULTS = {
    "lfm2_vl": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "heads": 12},
    "smolvlm": {"hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "heads": 16},
}
TOWER_DEFAULTS["idefics3"] = TOWER_DEFAULTS["smolvlm"]

# Keys that change nothing in what the model computes: the processor's, and those for splitting large images.
OTHERS = frozenset(
    {
        *("_pad_token_id", "do_image_splitting", "encoder_patch_size", "image_seq_len", "is_encoder_decoder"),
        *("max_image_size", "max_image_tokens", "max_num_patches", "max_pixels_tolerance", "max_tiles"),
        *("min_image_tokens", "min_tiles", "size", "tie_embedding", "tie_word_embeddings", "tile_size"),
        *("use_image_special_tokens", "use_resampler", "use_thumbnail", "vision_feature_layer", "vocab_size"),
    }
)


def describe_vision(
    config: Mapping[str, Any], *, name: str = "", where: str = "config.json"
) -> PublishedVision:
    """The vision-language model that a config.json describes.

    config: its content.
    name: of the model.
    where: the file, for messages.

    Raises ArchitectureError, one line that begins with `where`, for a model that we cannot express.
    """
    settings = Settings(config, where=where)
    kind = settings.get("model_type", null=True)
    if not sees(config):
        raise settings.error("model_type", f"one of {', '.join(FAMILIES)}", kind)
    family, vision, defaults = FAMILIES[kind], settings.mapping("vision_config"), TOWER_DEFAULTS[kind]
    vision.only("hidden_act", *GELU_TANH)
    vision.only("num_channels", CHANNELS)
    tower = {
        "patch_size": vision.size("patch_size", default=16 if kind == "lfm2_vl" else 32),
        "width": vision.size("hidden_size", default=defaults["hidden_size"]),
        "depth": vision.size("num_hidden_layers", default=defaults["num_hidden_layers"]),
        "heads": vision.size("num_attention_heads", default=defaults["heads"]),
        "hidden": vision.size("intermediate_size", default=defaults["intermediate_size"]),
        "norm_eps": vision.real("layer_norm_eps", default=1e-6),
        **family.read_tower(settings, vision),
    }
    projector, inner = family.read_projector(settings, vision)
    language = describe(_text_config(settings, family), where=f"{where}: text_config")
    value = VisionLanguage.parse(
        {
            "name": name,
            "tower": tower,
            "projector": projector,
            "language": language.architecture,
            "image_token": settings.size("image_token_id", default=family.image_token, least=0),
        },
        where=where,
    )
    vision.without_effect(WITHOUT_EFFECT | OTHERS | {"model_type"})
    vision.refuse_unread(f"the tower of {kind}", NEUTRAL)
    settings.without_effect(WITHOUT_EFFECT | OTHERS | {"architectures", "image_token_index"})
    settings.refuse_unread(kind, NEUTRAL)
    return PublishedVision(
        value, _names(value, family, inner), language, family.language, family.patches_last
    )


def _text_config(settings: Settings, family: _Family) -> dict[str, Any]:
    """The config.json of the language model. Whether its head is tied is said beside it."""
    text = {**family.text_defaults, **settings.mapping("text_config").values}
    outer = settings.get("tie_word_embeddings", "tie_embedding", null=True)
    if outer is None:
        outer = "smolvlm" not in str(settings.get("model_type")) and settings.get("model_type") != "idefics3"
    text = {key: value for key, value in text.items() if key not in ("architectures", "tie_embedding")}
    return {"model_type": "lfm2", **text, "tie_word_embeddings": outer}


def _names(value: VisionLanguage, family: _Family, inner: Mapping[str, str]) -> dict[str, str]:
    """The published tensor of each of our parameters outside of the language model."""
    parts = {"tower.patch_embedding": f"{family.tower}embeddings.patch_embedding"}
    parts["tower.norm"] = f"{family.tower}post_layernorm"
    for block in range(value.tower.depth):
        for ours, theirs in BLOCK.items():
            parts[f"tower.blocks.{block}.{ours}"] = f"{family.tower}encoder.layers.{block}.{theirs}"
    parts |= {f"projector.{ours}": family.projector + theirs for ours, theirs in inner.items()}
    names = {"tower.position": f"{family.tower}embeddings.position_embedding.weight"}
    for name in parameter_shapes(value):
        part, _, kind = name.rpartition(".")
        if part in parts:
            names[name] = f"{parts[part]}.{kind}"
    return names


def fitted_vision(
    published: PublishedVision, tensors: Mapping[str, Tensor], *, where: Path | str
) -> dict[str, Tensor]:
    """The weights of our model by name, in the published dtype.

    published: the model in our terms.
    tensors: its tensors by name.
    where: their file or folder, for messages.

    Raises DataError, which names the tensors that are missing, unknown, or of another shape.
    """
    spelled = {_spelling(name): name for name in tensors}
    text = {
        name.replace(published.prefix, "model.", 1): tensors[old]
        for name, old in spelled.items()
        if name.startswith(published.prefix) or name == "lm_head.weight"
    }
    others = {
        name: old
        for name, old in spelled.items()
        if name != "lm_head.weight" and not name.startswith(published.prefix)
    }
    # The pooling head of SigLIP comes behind what the language model reads, so that nothing depends on it.
    unknown = sorted(name for name in others.keys() - set(published.names.values()) if ".head." not in name)
    missing = sorted(set(published.names.values()) - others.keys())
    for problem, listed in (("missing weights", missing), ("weights that the model does not have", unknown)):
        if listed:
            raise DataError(f"{where}: {problem}: {', '.join(listed[:3])}, {len(listed)} in all")
    weights = {
        f"{LANGUAGE}{name}": tensor for name, tensor in fitted(published.language, text, where=where).items()
    }
    shapes = parameter_shapes(published.value)
    for ours, theirs in published.names.items():
        tensor = tensors[others[theirs]]
        if ours == "tower.patch_embedding.weight":
            tensor = _patches_first(published, tensor)
        if tensor.numel() != shapes[ours].numel():
            raise DataError(
                f"{where}: {theirs}: expected shape {tuple(shapes[ours])}, got {tuple(tensor.shape)}"
            )
        weights[ours] = tensor.reshape(shapes[ours])
    return weights


def _spelling(name: str) -> str:
    """Older folders, and newer ones, have one more level in the name of the tower's tensors."""
    return name.replace("vision_tower.vision_model.", "vision_tower.", 1)


def _patches_first(published: PublishedVision, weight: Tensor) -> Tensor:
    """A patch embedding [W, …] -> [W, 3 · patch²], with all red values first."""
    size = published.value.tower.patch_size
    if published.patches_last and weight.shape[-1] == CHANNELS * size**2:
        weight = weight.unflatten(-1, (size, size, CHANNELS)).permute(0, 3, 1, 2)
    return torch.flatten(weight, 1)
