"""Writes an architecture with its weights as a GGUF file, which llama.cpp runs, or one that sees as two."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from operators.architecture import Architecture
from operators.base.errors import DataError
from operators.parameter_shapes import parameter_shapes
from operators.published.gguf_export.files import File, remarks, require_package, require_weights, write_files
from operators.published.gguf_export.homes import outline
from operators.published.gguf_export.mmproj import (
    PLACEHOLDER,
    PREFIX,
    eyes_outline,
    readable,
    require_same_positions,
)
from operators.published.gguf_export.outline import Outline
from operators.published.gguf_export.sizes import Dtype
from operators.published.gguf_export.vocabulary import Vocabulary, for_images, padded
from operators.published.vision_families import LANGUAGE
from operators.vision.model import parameter_shapes as shapes_of_seeing
from operators.vision.vision_language import VisionLanguage


@dataclass(frozen=True)
class Written:
    """A GGUF model on the disk.

    family: its `general.architecture`.
    paths: its file, or its parts in their order.
    remarks: lines for the user.
    """

    family: str
    paths: tuple[Path, ...]
    remarks: tuple[str, ...]


def write_gguf(
    architecture: Architecture,
    parameters: Mapping[str, Tensor],
    vocabulary: Vocabulary | None,
    to: Path,
    *,
    dtype: Dtype = "F16",
    context: int = 2048,
    split_bytes: int | None = None,
) -> Written:
    """Writes a GGUF file, or several parts: all of it or nothing.

    parameters: our weights by name. They are read one tensor at a time.
    vocabulary: None for tokens without text, as for a model that is only measured.
    to: a new file that ends in .gguf. Parts get `-00001-of-00003` before the ending.
    dtype: of the matrices. Vectors and short convolutions stay F32. With Q8_0 a matrix is F16 where its rows
        are no multiple of 32 long.
    context: tokens that the model was trained for; llama.cpp reads no more without being told.
    split_bytes: the most that the tensors of one part may take, unless a single one takes more; None for one
        file.

    Raises ArchitectureError where no GGUF model of llama.cpp holds the architecture, DataError for weights
    and a vocabulary that do not fit it, and RunError where the file exists or cannot be written, or the
    package gguf is missing.
    """
    require_package(to)
    plan = outline(architecture)
    require_weights(parameter_shapes(architecture), parameters)
    file = _language(architecture, plan, parameters, vocabulary, to, context, split_bytes)
    (paths,) = write_files([file], dtype)
    return Written(plan.family, paths, remarks(plan, dtype))


def write_pair(
    value: VisionLanguage,
    parameters: Mapping[str, Tensor],
    vocabulary: Vocabulary | None,
    to: Path,
    *,
    dtype: Dtype = "F16",
    context: int = 2048,
    split_bytes: int | None = None,
) -> tuple[Written, Written]:
    """Writes the file of a language model, and that of its tower and projector: both or none.

    The second one lies beside the first, with `mmproj-` before its name. It is one file in any case, and its
    patch embedding and positions stay F32.

    The parameters and errors are those of `write_gguf`.
    """
    require_package(to)
    plan = outline(value.language)
    kind, eyes = eyes_outline(value)
    require_same_positions(plan, value)
    require_weights(shapes_of_seeing(value), parameters)
    language = {
        name.removeprefix(LANGUAGE): tensor
        for name, tensor in parameters.items()
        if name.startswith(LANGUAGE)
    }
    tokens, added = for_images(vocabulary, value.language.vocabulary, value.image_token, kind.marks)
    if kind.needed and (without := [mark for mark in kind.marks if mark not in tokens.tokens]):
        raise DataError(
            f"vocabulary: expected a token for each of {readable(kind.marks)}, which {kind.name} puts "
            f"around an image, or rows without a token: it lacks {readable(without)}"
        )
    text = _language(value.language, plan, language, tokens, to, context, split_bytes)
    beside = to.with_name(f"{PREFIX}{to.name}")
    projector = File(
        beside,
        eyes,
        parameters,
        "mmproj",
        value.name or to.stem,
        lambda writer: writer.add_uint32(PLACEHOLDER, value.image_token),
    )
    written = write_files([text, projector], dtype)
    around = f"llama.cpp puts {readable(kind.marks)} around an image, which the model never read before"
    return (
        Written(plan.family, written[0], remarks(plan, dtype)),
        Written(eyes.family, written[1], (*remarks(eyes, dtype), *([around] if added else []))),
    )


def _language(
    architecture: Architecture,
    plan: Outline,
    parameters: Mapping[str, Tensor],
    vocabulary: Vocabulary | None,
    to: Path,
    context: int,
    split_bytes: int | None,
) -> File:
    """The file of a language model. Raises DataError for a vocabulary that does not fit it."""
    if vocabulary is not None and len(vocabulary.tokens) > architecture.vocabulary:
        raise DataError(
            f"vocabulary: expected at most {architecture.vocabulary} tokens, as the embedding has rows, "
            f"got {len(vocabulary.tokens)}"
        )
    more = partial(_add_text, vocabulary=padded(vocabulary, architecture.vocabulary), context=context)
    return File(to, plan, parameters, "model", architecture.name or to.stem, more, split_bytes)


def _add_text(writer: Any, *, vocabulary: Vocabulary, context: int) -> None:
    writer.add_context_length(context)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.splitting)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    # llama.cpp needs a merge. This one never happens, as no text gives the token that ends a text.
    writer.add_token_merges(vocabulary.merges or [" ".join([vocabulary.tokens[vocabulary.end]] * 2)])
    # Without these two llama.cpp takes token 11, and stops there when it generates.
    writer.add_eos_token_id(vocabulary.end)
    writer.add_bos_token_id(vocabulary.end if vocabulary.begin is None else vocabulary.begin)
    writer.add_add_bos_token(vocabulary.puts_begin)
    writer.add_add_eos_token(vocabulary.puts_end)
