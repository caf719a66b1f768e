"""Turns a published model into a folder that `search.export.load` reads."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from operators import Architecture
from operators.errors import DataError, RunError
from operators.files import whole_folder
from operators.published import describe, fitted, remark_on_steps
from operators.published.gguf_file import GgufFile
from operators.published.safetensors_folder import SafetensorsFolder

CONTROL, USER_DEFINED = 3, 4  # kinds of tokens in GGUF


@dataclass(frozen=True)
class Imported:
    """What was written.

    without_tokenizer: why there is no tokenizer.json, or None. remarks: what a user should know besides, a line each.
    """

    architecture: Architecture
    parameters: int
    without_tokenizer: str | None
    remarks: tuple[str, ...] = ()


def import_model(source: Path, to: Path) -> Imported:
    """Writes architecture.yaml, model.safetensors and tokenizer.json of a Hugging Face folder or a GGUF file into `to`: all or nothing.

    `to` is a new or empty folder. Raises ArchitectureError for a model that we cannot express, DataError for files that are
    missing, damaged or do not fit, RunError for a folder in use.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RunError(f"{to}: exists already, expected a folder that is new or empty; --to names another")
    tensors = _opened(source)
    where = source / "config.json" if isinstance(tensors, SafetensorsFolder) else source
    published = describe(tensors.config, name=model_name(source), where=str(where))
    weights = fitted(published, tensors, where=source)
    remarks = [*tensors.remarks] if isinstance(tensors, SafetensorsFolder) else []
    if steps := remark_on_steps(published, weights):
        remarks.append(steps)
    with whole_folder(to) as partial:
        (partial / "architecture.yaml").write_text(published.architecture.to_yaml(), encoding="utf-8")
        save_file(
            {name: tensor.contiguous() for name, tensor in weights.items()}, partial / "model.safetensors"
        )
        (partial / "model.safetensors").chmod(0o644)  # it is written through a private temporary file
        without = _write_tokenizer(tensors, partial / "tokenizer.json")
    parameters = sum(tensor.numel() for tensor in weights.values())
    return Imported(published.architecture, parameters, without, tuple(remarks))


def model_name(source: Path) -> str:
    """What an imported model is called: the folder, or the file without its ending."""
    return source.resolve().stem if source.is_file() else source.resolve().name


def _opened(source: Path) -> SafetensorsFolder | GgufFile:
    if source.is_dir():
        return SafetensorsFolder(source)
    if source.is_file() and source.suffix.lower() == ".gguf":
        return GgufFile(source)
    found = "a file of another kind" if source.exists() else "nothing there"
    raise DataError(f"{source}: expected a Hugging Face folder or a .gguf file, found {found}")


def _write_tokenizer(tensors: SafetensorsFolder | GgufFile, path: Path) -> str | None:
    """Writes tokenizer.json -> None, or the reason why there is none."""
    if isinstance(tensors, GgufFile):
        made = gguf_tokenizer(tensors)
        if isinstance(made, str):
            return made
        made.save(str(path))
        return None
    source = tensors.folder / "tokenizer.json"
    if not source.is_file():
        return f"{tensors.folder} has no tokenizer.json"
    shutil.copyfile(source, path)
    return None


def gguf_tokenizer(file: GgufFile) -> Tokenizer | str:
    """The byte-level BPE of a GGUF file, or the reason why it cannot be made. Raises DataError for a damaged one."""
    kind, split = file.field("tokenizer.ggml.model"), file.field("tokenizer.ggml.pre") or "default"
    splits: dict[str, list[Any]] = {"gpt-2": [], "smollm": [pre_tokenizers.Digits(individual_digits=True)]}
    if kind != "gpt2" or split not in splits:
        return (
            f"its tokenizer is {kind} with {split} splitting; known is gpt2 with one of {', '.join(splits)}"
        )
    tokens, merges = file.field("tokenizer.ggml.tokens") or [], file.field("tokenizer.ggml.merges") or []
    kinds = file.field("tokenizer.ggml.token_type") or [1] * len(tokens)
    pairs = [tuple(merge.split(" ")) for merge in merges]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(kinds) != len(tokens) or any(len(pair) != 2 for pair in pairs):
        raise DataError(
            f"{file.path}: expected a tokenizer of different tokens with a kind each and merges of two"
        )
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    except Exception as error:  # tokenizers raises plain Exception for a merge of unknown tokens
        raise DataError(f"{file.path}: tokenizer: {error}") from None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits[split], pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True) for t, k in zip(tokens, kinds, strict=True) if k == CONTROL]
    )
    tokenizer.add_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, kinds, strict=True) if k == USER_DEFINED]
    )
    return tokenizer
