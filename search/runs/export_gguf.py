"""Writes a model with its tokenizer as a GGUF file, and one that sees as two."""

from pathlib import Path
from typing import Any

from operators.base.errors import ArchitectureError
from operators.published.gguf_export.sizes import Dtype
from operators.published.gguf_export.writing import write_gguf, write_pair
from operators.published.vision_families import LANGUAGE
from proxy_train.text.tokenizer import end_of_document
from search.runs.exportable import Exportable
from search.runs.gguf_vocabulary import gguf_vocabulary

LONGEST = 2048  # tokens of context where that of the training is not known


def export_gguf(
    model: Exportable, to: Path, *, dtype: Dtype = "F16", split_bytes: int | None = None
) -> list[str]:
    """Writes the file, or several parts, and beside it that of tower and projector: all of it or nothing.

    to, dtype, split_bytes: as `write_gguf` takes them.

    Returns lines for the user.

    Raises what `write_pair` does, and DataError for a tokenizer that a GGUF file cannot hold.
    """
    vocabulary = None
    if model.tokenizer is not None:
        end = end_of_document(model.tokenizer, model.end, model.title)
        vocabulary = gguf_vocabulary(model.tokenizer, end=end, where=f"{model.title}: tokenizer.json")
    options: dict[str, Any] = {
        "dtype": dtype,
        "context": model.context or LONGEST,
        "split_bytes": split_bytes,
    }
    try:
        if model.eyes is None:
            files = [write_gguf(model.architecture, model.weights, vocabulary, to, **options)]
        else:
            language = {f"{LANGUAGE}{name}": tensor for name, tensor in model.weights.items()}
            weights = {**model.eyes.weights, **language}
            files = [*write_pair(model.eyes.value, weights, vocabulary, to, **options)]
    except ArchitectureError as error:
        raise ArchitectureError(f"{model.title}: {error}") from None
    text, *others = files
    remarks = [f"llama.cpp runs it as {text.family}", *text.remarks]
    if len(text.paths) > 1:
        remarks.append(f"{len(text.paths)} parts, the first is {text.paths[0]}")
    for eyes in others:
        remarks += [f"tower and projector are in {eyes.paths[0]}, for --mmproj of llama.cpp", *eyes.remarks]
    if model.random:
        remarks.append("the weights are random")
    if model.tokenizer is None:
        remarks.append("there is no tokenizer: the tokens have no text")
    return remarks
