"""Turns a published model into a folder that `search.export.load` reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from operators import Architecture
from operators.errors import DataError, RunError
from operators.files import whole_folder
from operators.published import describe, fitted
from operators.published.gguf_file import GgufFile
from operators.published.safetensors_folder import SafetensorsFolder
from proxy_train.tokenizer import load_published

OTHER_TOKENIZERS = ("tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt")
NAMED_TOKENS = 5  # so many fit a line
CONTROL, USER_DEFINED = 3, 4  # kinds of tokens in GGUF


@dataclass(frozen=True)
class Imported:
    """What was written.

    without_tokenizer: why there is no tokenizer.json, or None.
    beyond: which tokens have ids that the model has no row for, or None.
    """

    architecture: Architecture
    parameters: int
    without_tokenizer: str | None
    beyond: str | None


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
    with whole_folder(to) as partial:
        (partial / "architecture.yaml").write_text(published.architecture.to_yaml(), encoding="utf-8")
        save_file(
            {name: tensor.contiguous() for name, tensor in weights.items()}, partial / "model.safetensors"
        )
        (partial / "model.safetensors").chmod(0o644)  # it is written through a private temporary file
        tokenizer = _tokenizer(tensors)
        if isinstance(tokenizer, Tokenizer):
            tokenizer.save(str(partial / "tokenizer.json"))
    return Imported(
        published.architecture,
        sum(tensor.numel() for tensor in weights.values()),
        without_tokenizer=tokenizer if isinstance(tokenizer, str) else None,
        beyond=None if isinstance(tokenizer, str) else _beyond(tokenizer, published.architecture.vocabulary),
    )


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


def _tokenizer(tensors: SafetensorsFolder | GgufFile) -> Tokenizer | str:
    """The model's tokenizer, or the reason why there is none. Raises DataError for a damaged one."""
    if isinstance(tensors, GgufFile):
        return gguf_tokenizer(tensors)
    source = tensors.folder / "tokenizer.json"
    if source.is_file():
        return load_published(source)
    others = [name for name in OTHER_TOKENIZERS if (tensors.folder / name).is_file()]
    if not others:
        return f"{tensors.folder} has no tokenizer.json"
    return (
        f"{tensors.folder} has no tokenizer.json; it has {' and '.join(others)}, of which "
        "`transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` makes one"
    )


def _beyond(tokenizer: Tokenizer, rows: int) -> str | None:
    ids = {index: token for token, index in tokenizer.get_vocab().items() if index >= rows}
    if not ids:
        return None
    named = ", ".join(f"{ids[index]} ({index})" for index in sorted(ids)[:NAMED_TOKENS])
    more = f" and {len(ids) - NAMED_TOKENS:,} more" if len(ids) > NAMED_TOKENS else ""
    return f"the tokenizer has ids up to {max(ids):,}, the embedding has {rows:,} rows: the model cannot read {named}{more}"


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
