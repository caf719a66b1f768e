"""From text to token ids and back: a tokenizer trained here, or any `tokenizer.json`."""

import json
import re
from collections.abc import Container, Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from operators.base.errors import DataError
from proxy_train.text import tokenizer_file

END_OF_DOCUMENT = "<|endoftext|>"
# The usual names of a token that ends a document, in the order of the search.
KNOWN_ENDS = (END_OF_DOCUMENT, "<|end_of_text|>", "<|eos|>", "<eos>", "</s>", "[EOS]")
SMALLEST_VOCABULARY = 257  # the bytes and the end of a document
# Characters. Longer documents are cut before they are encoded: the library needs
# a hundred times their memory.
_PIECE = 2**20
# Where training cuts a word: the time to learn from one grows with the square of its length.
_RUN = re.compile(r"\S{4096}|\s{4096}")
_TOGETHER = 64  # documents that are encoded in parallel, as long as they have less than a piece together


def train_tokenizer(documents: Iterable[str], vocabulary: int) -> Tokenizer:
    """Trains a byte-level BPE; the same documents give the same tokenizer.

    Every text has tokens, and every token stands for a known number of bytes. A run of 4096 characters
    without white space (an encoded picture, say) or of white space alone is cut.

    documents: the text.
    vocabulary: tokens at most; the tokenizer has fewer where no more pairs occur twice in the text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (word for text in documents for piece in _pieces(text) for word in _cut(piece)), trainer=trainer
    )
    return _plain(tokenizer)


def load_tokenizer(path: Path, end: str | None = None) -> Tokenizer:
    """The tokenizer of a tokenizer.json, changed to encode as training does: see `tokenizer_file.as_trained`.

    What its `to_str` returns encodes the same.

    end: its end-of-document token, or None for the first of KNOWN_ENDS.

    Raises DataError.
    """
    content = tokenizer_file.read(path)
    trained = tokenizer_file.as_trained(content, first_end(tokenizer_file.tokens(content), end))
    return _plain(Tokenizer.from_str(json.dumps(trained)))


def load_published(path: Path) -> Tokenizer:
    """The tokenizer of a published model's tokenizer.json, which treats special tokens as the file asks.

    Truncation, padding and dropout belong to one use of the tokenizer and are left out. Raises DataError.
    """
    return Tokenizer.from_str(json.dumps(tokenizer_file.as_published(tokenizer_file.read(path))))


def encodes_otherwise(path: Path, end: str | None) -> bool:
    """Whether earlier versions may have encoded a text differently with this file. Raises DataError."""
    content = tokenizer_file.read(path)
    return tokenizer_file.encodes_otherwise(content, first_end(tokenizer_file.tokens(content), end))


def end_of_document(tokenizer: Tokenizer, token: str | None, where: str) -> str:
    """The token that follows every document.

    token: its name, or None for the first of KNOWN_ENDS.
    where: the tokenizer's file, for the message.

    Raises DataError where the tokenizer has no such token.
    """
    if (known := first_end(tokenizer.get_vocab(), token)) is not None:
        return known
    missing = (
        "none of its tokens ends documents by its name; data.end_of_document names one"
        if token is None
        else f"it has no token {token}"
    )
    raise DataError(f"{where}: {missing}")


def require_room(tokenizer: Tokenizer, vocabulary: int, where: str) -> None:
    """Raises DataError where a token's id is not below `vocabulary`."""
    if (needed := ids_needed(tokenizer)) > vocabulary:
        raise DataError(
            f"vocabulary {vocabulary} is smaller than the tokenizer {where}: expected at least {needed}"
        )


def ids_needed(tokenizer: Tokenizer) -> int:
    """One more than the largest id of a token."""
    return 1 + max(tokenizer.get_vocab().values())


def encode(
    tokenizer: Tokenizer, documents: Iterable[str], end: int | None, dtype: np.dtype
) -> Iterator[np.ndarray]:
    """The token ids of each document, followed by the id `end`.

    A document of more than a million characters is encoded in pieces. A piece begins with a line break where
    there is one.

    end: the id that ends a document; None for nothing behind a document.
    dtype: of the ids.

    Raises DataError for text that the tokenizer would drop because it has no token for it.
    Raises DataError where a text itself gives the id `end`: the document would look like two to the model.
    """
    content = json.loads(tokenizer.to_str())
    telling = tokenizer_file.telling_what_it_drops(content)
    if telling is not None:
        tokenizer = _plain(Tokenizer.from_str(json.dumps(telling[0])))
    for together in _batches(documents):
        pieces = [_pieces(text) for text in together]
        try:
            encodings = iter(
                tokenizer.encode_batch_fast(
                    [piece for some in pieces for piece in some], add_special_tokens=False
                )
            )
        except Exception as error:  # the library raises plain Exception for text that has no token
            raise DataError(f"the tokenizer cannot encode the text of a document: {error}") from None
        for some in pieces:
            parts = [next(encodings).ids for _ in some]
            if telling is not None and (dropped := sum(part.count(telling[1]) for part in parts)):
                raise DataError(
                    f"the tokenizer would drop {dropped:,} characters of a document, "
                    "for which it has no token: "
                    "expected one with an unknown token (unk_token) or with bytes to fall back on"
                )
            behind = [] if end is None else [end]
            ids = np.concatenate([np.array(part, dtype=dtype) for part in (*parts, behind)])
            if end is not None and (inside := int((ids == end).sum()) - 1) > 0:
                raise DataError(
                    f"end of document {tokenizer.id_to_token(end)!r}: "
                    f"the text of a document gives this token {inside:,} times, "
                    "expected one that no text gives; data.end_of_document names another"
                )
            yield ids


def put_before(tokenizer: Tokenizer) -> list[int]:
    """The ids that a published tokenizer puts before a text, such as the beginning of a document's."""
    # Without the tokenizer's own model, which may have no token for the text.
    bare = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))  # noqa: S106 - not a password
    if tokenizer.post_processor is not None:
        bare.post_processor = tokenizer.post_processor
    encoding = bare.encode("a")
    special = takewhile(lambda pair: pair[1], zip(encoding.ids, encoding.special_tokens_mask, strict=True))
    return [index for index, _ in special]


def taking_text_as_text(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, to which the name of a special token in a text is text."""
    return _plain(Tokenizer.from_str(tokenizer.to_str()))


def token_bytes(tokenizer: Tokenizer, vocabulary: int, end: int) -> np.ndarray:
    """How many bytes of text each id stands for: [vocabulary] uint32.

    For byte-level tokenizers this is exact. For others it counts the bytes that the tokens spell, with the
    spaces that the tokenizer adds. What it loses (capitals, unknown characters) counts no bytes. The id `end`
    and ids without a token stand for none.
    """
    content = json.loads(tokenizer.to_str())
    added = {token["content"]: token["special"] for token in content["added_tokens"]}
    byte_level = _names_byte_level(content["pre_tokenizer"]) or _names_byte_level(content["decoder"])
    lengths = np.zeros(vocabulary, dtype=np.uint32)
    for token, index in tokenizer.get_vocab().items():
        if token in added:
            # Special tokens never stand for text, see `_plain`.
            lengths[index] = 0 if added[token] else len(token.encode())
        else:
            # The byte-level alphabet writes a byte as one character.
            lengths[index] = len(token) if byte_level else _spelled(token)
    lengths[end] = 0
    if (unknown := unknown_id(tokenizer)) is not None:
        lengths[unknown] = 0
    return lengths


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The id for text that has no token of its own; None where the tokenizer has no such id."""
    name = tokenizer_file.unknown_token(json.loads(tokenizer.to_str()))
    return None if name is None else tokenizer.token_to_id(name)


def first_end(vocabulary: Container[str], token: str | None) -> str | None:
    """The end-of-document token of a vocabulary: `token`, or without one the first of KNOWN_ENDS; or None."""
    return next((known for known in (KNOWN_ENDS if token is None else (token,)) if known in vocabulary), None)


def _spelled(token: str) -> int:
    """How many bytes of text a token spells.

    WordPiece writes ## before the next part of a word, SentencePiece ▁ for a space.
    """
    if (
        len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    ):  # SentencePiece's name of one byte
        return 1
    return len(token.removeprefix("##").replace("▁", " ").encode())


def _names_byte_level(part: Any) -> bool:
    """Whether a step of a tokenizer.json, or one of the steps in it, is ByteLevel."""
    if isinstance(part, dict):
        return part.get("type") == "ByteLevel" or any(map(_names_byte_level, part.values()))
    return isinstance(part, list) and any(map(_names_byte_level, part))


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    together: list[str] = []
    for text in documents:
        together.append(text)
        if len(together) == _TOGETHER or sum(map(len, together)) >= _PIECE:
            yield together
            together = []
    if together:
        yield together


def _pieces(text: str) -> list[str]:
    pieces, start = [], 0
    while len(text) - start > _PIECE:
        line_break = text.rfind("\n", start + 1, start + _PIECE)
        end = line_break if line_break > 0 else start + _PIECE
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def _cut(text: str) -> Iterator[str]:
    """The text in pieces; each ends where a run of _RUN does."""
    start = 0
    for run in _RUN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, set to take all text as text and to cut and pad nothing."""
    # A text that happens to hold "<|endoftext|>" is text. A tokenizer.json does not keep this setting.
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
