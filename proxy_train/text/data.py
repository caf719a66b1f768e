"""Deterministic batches of prepared tokens, and bits per byte from their losses."""

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
    """Raises DataError where either text has fewer tokens than one window, sequence_length + 1."""
    for side, have in (("training", corpus.train_tokens), ("validation", corpus.validation_tokens)):
        if have < sequence_length + 1:
            raise DataError(
                f"{side} text too short for one batch: it has {have} tokens, "
                f"sequence_length {sequence_length} needs {sequence_length + 1}"
            )


def batches(
    corpus: Corpus, *, batch_size: int, sequence_length: int, steps: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of training tokens: inputs and targets, both [batch_size, sequence_length] int64.

    A target is the token after its input. An epoch reads neighbouring windows, each once, so that no token is
    a target twice in it. The next epoch begins at another token and has another order. Windows may cross the
    ends of documents.

    steps: how many batches.
    seed: fixes the windows and their order.

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
    """The first tokens of the windows of one epoch, shuffled: [windows]."""
    first = rng.integers(min(sequence_length, tokens - sequence_length))
    return first + sequence_length * rng.permutation((tokens - 1 - first) // sequence_length)


def validation_batches(
    corpus: Corpus, *, batch_size: int, sequence_length: int, tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of validation tokens: inputs and targets, both [B, sequence_length] int64, with B ≤ batch_size.

    Windows are neighbours, from the first token on. No token is a target twice.

    tokens: how many targets; they are rounded down to whole windows, at least one and at most all there are.

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
    """The loss in bits for each byte of text.

    nats: the summed loss of the scored tokens.
    text_bytes: bytes of text that these tokens stand for.
    """
    return nats / math.log(2) / text_bytes
