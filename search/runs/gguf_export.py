"""Writes a model with its tokenizer as a GGUF file."""

from pathlib import Path

from operators.base.errors import ArchitectureError
from operators.published.gguf_export.writing import Dtype, write_gguf
from proxy_train.text.tokenizer import end_of_document
from search.runs.exportable import Exportable
from search.runs.gguf_vocabulary import gguf_vocabulary

LONGEST = 2048  # tokens of context where that of the training is not known


def export_gguf(
    model: Exportable, to: Path, *, dtype: Dtype = "F16", split_bytes: int | None = None
) -> list[str]:
    """Writes the file, or several parts: all of it or nothing.

    to, dtype, split_bytes: as `write_gguf` takes them.

    Returns lines for the user.

    Raises what `write_gguf` does, and DataError for a tokenizer that a GGUF file cannot hold.
    """
    vocabulary = None
    if model.tokenizer is not None:
        end = end_of_document(model.tokenizer, model.end, model.title)
        vocabulary = gguf_vocabulary(model.tokenizer, end=end, where=f"{model.title}: tokenizer.json")
    try:
        written = write_gguf(
            model.architecture,
            model.weights,
            vocabulary,
            to,
            dtype=dtype,
            context=model.context or LONGEST,
            split_bytes=split_bytes,
        )
    except ArchitectureError as error:
        raise ArchitectureError(f"{model.title}: {error}") from None
    remarks = [f"llama.cpp runs it as {written.family}", *written.remarks]
    if len(written.paths) > 1:
        remarks.append(f"{len(written.paths)} parts, the first is {written.paths[0]}")
    if model.random:
        remarks.append("the weights are random")
    if model.tokenizer is None:
        remarks.append("there is no tokenizer: the tokens have no text")
    return remarks
