"""Byte-level byte-pair encoding: every text has tokens, and every token stands for a known number of bytes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_DOCUMENT = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # the bytes and the end of a document


def train_tokenizer(documents: Sequence[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE of at most `vocabulary` tokens (fewer where the text has no more pairs that occur twice); deterministic."""
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
    tokenizer.train_from_iterator(documents, trainer=trainer, length=len(documents))
    return _plain(tokenizer)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json that `prepare` wrote."""
    return _plain(Tokenizer.from_file(str(path)))


def encode(tokenizer: Tokenizer, documents: Sequence[str], dtype: np.dtype, *, together: int = 64) -> Iterator[np.ndarray]:
    """The token ids of each document, the end-of-document token behind them; `together` documents are encoded in parallel."""
    end = end_of_document(tokenizer)
    for first in range(0, len(documents), together):
        for encoding in tokenizer.encode_batch_fast(list(documents[first : first + together])):
            yield np.array([*encoding.ids, end], dtype=dtype)


def end_of_document(tokenizer: Tokenizer) -> int:
    """The id of the token that stands behind every document."""
    return int(tokenizer.get_vocab()[END_OF_DOCUMENT])


def token_bytes(tokenizer: Tokenizer, vocabulary: int) -> np.ndarray:
    """How many bytes of text each id stands for: [vocabulary] uint32. The end of a document and ids without a token stand for none."""
    lengths = np.zeros(vocabulary, dtype=np.uint32)
    for token, index in tokenizer.get_vocab().items():
        lengths[index] = len(token)  # the byte-level alphabet writes each byte as one character
    lengths[end_of_document(tokenizer)] = 0
    return lengths


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.encode_special_tokens = True  # a text that happens to hold "<|endoftext|>" is text; this is not kept in tokenizer.json
    return tokenizer
