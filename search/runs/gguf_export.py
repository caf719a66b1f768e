"""Writes a model with its tokenizer as a GGUF file."""

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from operators.architecture import Architecture
from operators.published.gguf_export.writing import Dtype, Written, write_gguf
from proxy_train.text.tokenizer import end_of_document
from search.runs.gguf_vocabulary import gguf_vocabulary


def export_gguf(
    architecture: Architecture,
    parameters: Mapping[str, Tensor],
    tokenizer: Path | None,
    to: Path,
    *,
    end: str | None = None,
    dtype: Dtype = "F16",
    context: int = 2048,
    split_bytes: int | None = None,
) -> Written:
    """Writes a GGUF file, see `write_gguf`.

    tokenizer: a tokenizer.json; None for tokens without text.
    end: the token that ends a document; None for the first usual name that the tokenizer has.

    Raises what `write_gguf` does, and DataError for a tokenizer that a GGUF file cannot hold.
    """
    vocabulary = None
    if tokenizer is not None:
        read = Tokenizer.from_file(str(tokenizer))
        vocabulary = gguf_vocabulary(tokenizer, end=end_of_document(read, end, str(tokenizer)))
    return write_gguf(
        architecture, parameters, vocabulary, to, dtype=dtype, context=context, split_bytes=split_bytes
    )
