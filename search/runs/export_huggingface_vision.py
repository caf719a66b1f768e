"""Writes a model that sees as a folder that `transformers` loads, with none of our code: an LFM2-VL."""

import json
from typing import Any

from torch import Tensor

from operators.base.errors import ArchitectureError, DataError
from operators.published.folding import folded
from operators.published.vision_families import LANGUAGE
from operators.published.vision_outward import (
    CLASS,
    FAMILY,
    HeldVision,
    hold_vision,
    published_vision_tensors,
)
from operators.vision.vision_language import VisionLanguage
from proxy_train.images.image_settings import ImageSettings
from proxy_train.text.tokenizer import ids_needed
from search.runs.exportable import Exportable, Eyes
from search.runs.huggingface_tokenizer import special_token, tokenizer_files
from search.runs.meta_rows import unused_name

IMAGE = "<image>"
"""What a prompt has once for each image; the processor of the class writes it as often as the image has
tokens."""


def vision_folder(
    model: Exportable, eyes: Eyes
) -> tuple[HeldVision, dict[str, Tensor], dict[str, str], list[str]]:
    """What the folder holds: the model in its class, tensors, other files by name, and lines for the user.

    config.json is left to the caller.

    Raises ArchitectureError, which names what the class does not have, and DataError for a tokenizer that
    does not match.
    """
    if model.architecture.meta_tokens:
        raise ArchitectureError(f"{model.title}: {FAMILY} holds no meta_tokens before an image")
    language, weights = folded(model.architecture, model.weights)
    value = eyes.value.model_copy(update={"language": language})
    try:
        held = hold_vision(value)
    except ArchitectureError as error:
        raise ArchitectureError(f"{model.title}: {error}") from None
    whole = {**{f"{LANGUAGE}{name}": tensor for name, tensor in weights.items()}, **eyes.weights}
    files = _with_image_token(model, value, tokenizer_files(model))
    files["preprocessor_config.json"] = json.dumps(_image_processor(value), indent=1) + "\n"
    files["processor_config.json"] = json.dumps({"processor_class": "Lfm2VlProcessor"}, indent=1) + "\n"
    return held, published_vision_tensors(held, whole), files, _remarks(model, eyes)


def _image_processor(value: VisionLanguage) -> dict[str, Any]:
    """Images of as many tokens as in the training, without tiles."""
    return {
        "image_processor_type": "Lfm2VlImageProcessor",
        "processor_class": "Lfm2VlProcessor",
        "do_image_splitting": False,
        "use_thumbnail": False,
        "do_resize": True,
        "resample": 3,  # bicubic, as in the training
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "encoder_patch_size": value.tower.patch_size,
        "downsample_factor": value.projector.pixel_shuffle,
        "min_image_tokens": value.image_tokens,
        "max_image_tokens": value.image_tokens,
        "size": {"height": value.tower.image_size, "width": value.tower.image_size},
    }


def _with_image_token(model: Exportable, value: VisionLanguage, files: dict[str, str]) -> dict[str, str]:
    """The tokenizer's files with a token for the placeholder. Raises DataError."""
    if model.tokenizer is None:
        return files
    content, index = json.loads(files["tokenizer.json"]), value.image_token
    added = {token["id"]: token["content"] for token in content["added_tokens"]}
    name = added.get(index, IMAGE)
    if index not in added:
        if model.tokenizer.token_to_id(IMAGE) is not None:
            raise DataError(f"{model.title}: the tokenizer has {IMAGE}, expected none besides id {index}")
        needed = ids_needed(model.tokenizer)
        _forget(content, model.tokenizer.id_to_token(index))
        # Rows without a token get one, as ids have to follow one another.
        names = {**{row: unused_name(row) for row in range(needed, index)}, index: IMAGE}
        content["added_tokens"] += [special_token(each, row) for row, each in names.items()]
        content["added_tokens"].sort(key=lambda token: token["id"])
    config = json.loads(files["tokenizer_config.json"])
    # The image's token is written in the text, and has to be found there.
    config |= {"split_special_tokens": False, "extra_special_tokens": {"image_token": name}}
    return {
        **files,
        "tokenizer.json": json.dumps(content, ensure_ascii=False) + "\n",
        "tokenizer_config.json": json.dumps(config, indent=1, ensure_ascii=False) + "\n",
    }


def _forget(content: dict[str, Any], name: str | None) -> None:
    """Takes a token, if any, from a tokenizer.json: its id means an image, so no text may have it."""
    vocabulary, merges = content["model"]["vocab"], content["model"].get("merges", [])
    if name is None or not isinstance(vocabulary, dict):
        return
    vocabulary.pop(name, None)
    parts = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    content["model"]["merges"] = [
        merge
        for merge, (left, right) in zip(merges, parts, strict=True)
        if name not in (left, right, left + right)
    ]


def _remarks(model: Exportable, eyes: Eyes) -> list[str]:
    images = eyes.images or ImageSettings()
    size = eyes.value.tower.image_size
    remarks = [
        f"images: the model was trained on squares of {size}×{size} pixels (resize {images.resize}); the "
        "processor keeps an image's proportions, so give it squares",
        f"{CLASS}: the processor wants use_image_special_tokens=False",
    ]
    if model.architecture.normalized_head:
        remarks.append("the normalized head became a plain one")
    if model.random:
        remarks.append("the weights are random")
    if model.tokenizer is None:
        remarks.append("there is no tokenizer")
    return remarks
