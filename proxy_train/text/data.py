"""Deterministic batches of prepared tokens, and what their losses mean for each byte of text."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base.errors import DataError
from proxy_train.text.corpus import Corpus
from proxy_train.text.data_settings import DataSettings
from proxy_train.text.prepare import prepare

__all__ = [
    "Corpus",
    "DataSettings",
    "batches",
    "bits_per_byte",
    "prepare",
    "require_windows",
    "validation_batches",
]


def require_windows(corpus: Corpus, sequence_length: int) -> None:
    """Raises DataError where the training or the validation text has less than one window of sequence_length + 1 tokens."""
    for side, have in (("training", corpus.train_tokens), ("validation", corpus.validation_tokens)):
        if have < sequence_length + 1:
            raise DataError(
                f"{side} text too short for one batch: it has {have} tokens, sequence_length {sequence_length} needs {sequence_length + 1}"
            )


def batches(
    corpus: Corpus, *, batch_size: int, sequence_length: int, steps: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, both [batch_size, sequence_length] int64: windows of the training tokens in an order fixed by the seed.

    An epoch reads windows that lie side by side, each once, so that no token is a target twice in it; the next one begins at another
    token and in another order. A target is the token after its input. Windows may cross the ends of documents.
    Raises DataError, see `require_windows`.
    """
    require_windows(corpus, sequence_length)
    tokens = corpus.train()
    rng = np.random.default_rng(seed)
    starts = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        while len(starts) < batch_size:
            starts = np.concatenate([starts, _epoch(len(tokens), sequence_length, rng)])
        yield _shifted(tokens.windows(starts[:batch_size], sequence_length + 1))
        starts = starts[batch_size:]


def _epoch(tokens: int, sequence_length: int, rng: np.random.Generator) -> np.ndarray:
    """Where the windows of one epoch begin, shuffled."""
    first = rng.integers(min(sequence_length, tokens - sequence_length))
    return first + sequence_length * rng.permutation((tokens - 1 - first) // sequence_length)


def validation_batches(
    corpus: Corpus, *, batch_size: int, sequence_length: int, tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets [B, sequence_length] int64, B ≤ batch_size: windows side by side from the start of the validation tokens.

    As many whole windows as `tokens` targets make, at least one, at most all there are. No token is a target twice.
    Raises DataError, see `require_windows`.
    """
    require_windows(corpus, sequence_length)
    held = corpus.validation()
    windows = max(1, min(tokens, len(held) - 1) // sequence_length)
    starts, offsets = np.arange(windows) * sequence_length, np.arange(sequence_length + 1)
    for first in range(0, windows, batch_size):
        yield _shifted(held[starts[first : first + batch_size, None] + offsets])


def _shifted(windows: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
    ids = torch.from_numpy(windows.astype(np.int64))
    return ids[:, :-1], ids[:, 1:]


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """The information in bits for each byte of the text that the scored tokens stand for; `nats` is their summed loss."""
    return nats / math.log(2) / text_bytes
