"""Reads tower and projector of a model that sees from a GGUF file: an mmproj file of llama.cpp."""

from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators.architecture import Architecture
from operators.base.errors import ArchitectureError, DataError, in_words
from operators.published.gguf_export.mmproj import FAMILY, KINDS, PLACEHOLDER, PREFIX, Kind, eyes_outline
from operators.published.gguf_export.outline import Outline
from operators.published.gguf_metadata import DESCRIPTIVE, short
from operators.published.gguf_parts import GgufPart, values_of
from operators.vision.model import parameter_shapes
from operators.vision.vision_language import VisionLanguage

SHOWN = 3  # names in a message; the others are counted
# Keys that change no number that the model computes from pixels: how large llama.cpp makes images.
SIZES = frozenset(key for kind in KINDS for key in kind.sizes)
# Keys that a file may lack, as its tensors say it, and flags of which one may be missing.
OPTIONAL = frozenset({"vision.projection_dim", "vision.projector.scale_factor"})
FLAGS = frozenset({"use_gelu", "use_silu"})


def is_mmproj(path: Path) -> bool:
    """Whether a file has the name of one with tower and projector."""
    return path.name.startswith(PREFIX) and path.suffix.lower() == ".gguf"


def language_file(path: Path) -> Path:
    """The file of the language model beside that of its tower, or its first part. Raises DataError."""
    beside = path.with_name(path.name.removeprefix(PREFIX))
    if beside.is_file():
        return beside
    parts = sorted(path.parent.glob(f"{beside.stem}-00001-of-?????.gguf"))
    if len(parts) != 1:
        raise DataError(f"{path}: expected the file of its language model beside it, {beside.name}")
    return parts[0]


def read_eyes(
    path: Path, language: Architecture, image_token: int | None, *, name: str
) -> tuple[VisionLanguage, dict[str, Tensor]]:
    """The model with this language model, and the weights of tower and projector in float32.

    image_token: the placeholder's id where the file does not say it; None where that is not known either.
    name: of the model.

    Raises DataError for a damaged file, and ArchitectureError, one line that begins with the file, for a
    model that we cannot express.
    """
    part = GgufPart(path)
    tensors = {tensor.name: tensor for tensor in part.tensors}
    kind = _kind(part)
    said = part.value(PLACEHOLDER)
    if (token := image_token if said is None else said) is None:
        raise DataError(f"{path}: {PLACEHOLDER}: missing, and the tokenizer has no <image>")
    value = VisionLanguage.parse(
        {
            "name": name,
            "tower": _tower(part, kind, tensors),
            "projector": _projector(part, kind, tensors),
            "language": language,
            "image_token": token,
        },
        where=str(path),
    )
    try:
        found, plan = eyes_outline(value)
    except ArchitectureError as error:
        raise ArchitectureError(f"{path}: {error}") from None
    if found != kind:
        raise ArchitectureError(f"{path}: clip.projector_type: expected {found.name}, got {kind.name}")
    _require_keys(part, plan)
    return value, _weights(path, value, plan, tensors)


def _kind(part: GgufPart) -> Kind:
    """The kind of the file. Raises ArchitectureError."""
    for key, expected in (("general.type", ("mmproj",)), ("general.architecture", (FAMILY,))):
        if part.value(key) not in expected:
            raise _refused(part, key, expected[0])
    kinds = {kind.name: kind for kind in KINDS}
    key = "clip.projector_type"
    if part.value(key) not in list(kinds):  # a damaged name may be a list
        raise _refused(part, key, f"one of {', '.join(kinds)}")
    return kinds[part.value(key)]


def _refused(part: GgufPart, key: str, expected: object) -> ArchitectureError:
    return ArchitectureError(f"{part.path}: {key}: expected {expected}, got {in_words(part.value(key))}")


def _tower(part: GgufPart, kind: Kind, tensors: Mapping[str, Any]) -> dict[str, Any]:
    def said(key: str) -> Any:
        return short(part.value(f"clip.vision.{key}"))

    positions, queries = tensors.get("v.position_embd.weight"), tensors.get("v.blk.0.attn_q_norm.weight")
    qk_norm = "none"
    if queries is not None:
        qk_norm = "full" if _rows(queries) == said("embedding_length") else "head"
    norm, norm_position = kind.wants["tower.norms"][0].split(" ")
    tower = {
        "image_size": said("image_size"),
        "patch_size": said("patch_size"),
        "width": said("embedding_length"),
        "depth": said("block_count"),
        "heads": said("attention.head_count"),
        "hidden": said("feed_forward_length"),
        "feedforward": "swiglu" if "v.blk.0.ffn_gate.weight" in tensors else "gelu",
        "bias": "v.blk.0.attn_q.bias" in tensors,
        "qk_norm": qk_norm,
        "norms": {"norm": norm, "norm_position": norm_position},
        "position_bias": positions is not None,
        "rope_theta": kind.wants["tower.rope_theta"][0],
        "norm_eps": said("attention.layer_norm_epsilon"),
    }
    if positions is not None:
        tower["position_grid"] = isqrt(_rows(positions))
    return tower


def _rows(tensor: Any) -> int:
    """The slowest dimension of a tensor; 0 for one that has none, as a damaged file may."""
    return int(tensor.shape[-1]) if len(tensor.shape) else 0


def _projector(part: GgufPart, kind: Kind, tensors: Mapping[str, Any]) -> dict[str, Any]:
    matrices = [tensors.get(f"{name}.weight") for name in kind.matrices]
    shuffle = part.value("clip.vision.projector.scale_factor")
    return {
        "pixel_shuffle": 1 if shuffle is None else shuffle,
        "hidden": [_rows(matrix) for matrix in matrices[:-1] if matrix is not None],
        "norm": kind.final_norm != "mm.input_norm" and "mm.input_norm.weight" in tensors,
        "bias": f"{kind.matrices[0]}.bias" in tensors,
    }


def _require_keys(part: GgufPart, plan: Outline) -> None:
    """Raises ArchitectureError for a key that is not as our own file of the model has it."""
    for name, expected in plan.keys.items():
        got = part.value(f"clip.{name}")
        if name in SIZES or (got is None and name in OPTIONAL):
            continue
        if got is None and name in FLAGS:
            got = False
        if short(got) != expected:
            raise _refused(part, f"clip.{name}", expected)
    known = {f"clip.{name}" for name in (*plan.keys, *SIZES)} | {PLACEHOLDER}
    for key in part:
        if key not in known and not key.startswith(DESCRIPTIVE):
            raise _refused(part, key, "no such key, as what it does is not known here")


def _weights(
    path: Path, value: VisionLanguage, plan: Outline, tensors: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Our weights of the file's. Raises DataError for others than the plan's, by name or shape."""
    names = {stored.name for stored in plan.tensors}
    for problem, listed in (
        ("missing weights", sorted(names - tensors.keys())),
        ("weights that the model does not have", sorted(tensors.keys() - names)),
    ):
        if listed:
            raise DataError(f"{path}: {problem}: {', '.join(listed[:SHOWN])}, {len(listed)} in all")
    shapes, weights = parameter_shapes(value), {}
    for stored in plan.tensors:
        values = values_of(path, tensors[stored.name])
        if tuple(values.shape) != stored.shape:
            raise DataError(
                f"{path}: {stored.name}: expected shape {stored.shape}, got {tuple(values.shape)}"
            )
        if stored.parts:
            weights[stored.parts[0]] = values.reshape(shapes[stored.parts[0]])
        elif not torch.equal(values, torch.tensor(stored.fill).expand(stored.shape)):
            raise ArchitectureError(f"{path}: {stored.name}: expected {stored.fill:g} everywhere")
    return weights
