"""How well a model predicts a text: nats per token, perplexity and bits per byte, over stated windows."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from operators.base.errors import ConfigError, DataError, DivergedError
from operators.model import HybridLM

# Tokens that the model reads in one pass where a window is shorter, and whose logits are held at once: 1024
# tokens of a vocabulary of 128,000 take half a gigabyte in float32.
_TOKENS = 1024


@dataclass(frozen=True)
class Window:
    """One reading of the model: it reads inputs and is scored on some of the tokens that follow them.

    start: place of the first input in the text's tokens.
    context: how many of the first predictions are not scored, because an earlier window has them.
    """

    start: int
    context: int


@dataclass(frozen=True)
class Loss:
    """What a scoring measured.

    nats: the summed loss of the scored tokens.
    tokens: how many were scored.
    windows: how many windows were read.
    window: inputs of each window.
    """

    nats: float
    tokens: int
    windows: int
    window: int


def windows(tokens: int, window: int, stride: int) -> list[Window]:
    """The windows over a text; together they score every token but the first, each once.

    Each begins `stride` tokens behind the one before. The last one is moved back to end with the text.

    tokens: of the text, at least 2.
    window: inputs of a window; a text that is shorter has one window of all its inputs.
    stride: from 1 to `window`.
    """
    predictions, scored = tokens - 1, 0
    window = min(window, predictions)
    out: list[Window] = []
    while scored < predictions:
        start = min(len(out) * stride, predictions - window)
        out.append(Window(start, context=scored - start))
        scored = start + window
    return out


@torch.inference_mode()
def score_tokens(
    model: HybridLM,
    ids: np.ndarray,
    *,
    window: int,
    stride: int,
    pause: Callable[[], float] = lambda: 0.0,
) -> Loss:
    """Scores a model on the tokens of a text: [tokens] ids. Meta tokens stand before every window.

    window: tokens that the model reads at a time, at least 2.
    stride: from one window's start to the next; where it is smaller than `window`, the tokens between are
        context alone.
    pause: called between passes.

    Raises ConfigError for a window or stride out of range.
    Raises DataError for fewer than 2 tokens, and for an id that the model does not have.
    Raises DivergedError for a loss that is not finite.
    """
    if window < 2:
        raise ConfigError(f"window: expected at least 2 tokens, got {window}")
    if not 1 <= stride <= window:
        raise ConfigError(f"stride: expected from 1 to the window, {window}, got {stride}")
    if len(ids) < 2:
        raise DataError(f"text too short: expected at least 2 tokens, got {len(ids)}")
    _require_rows(ids, model.architecture.vocabulary)
    placed = windows(len(ids), window, stride)
    length = min(window, len(ids) - 1)
    text, nats = torch.from_numpy(ids.astype(np.int64)), 0.0
    for some in _together(placed, max(1, _TOKENS // length)):
        rows = torch.stack([text[each.start : each.start + length + 1] for each in some])
        losses = _losses(model, rows)
        for each, row in zip(some, losses, strict=True):
            loss = math.fsum(row[each.context :].tolist())
            if not math.isfinite(loss):
                raise DivergedError(
                    f"loss {loss} at tokens {each.start} to {each.start + length}: expected a finite number"
                )
            nats += loss
        pause()
    return Loss(nats, len(ids) - 1, len(placed), length)


def _require_rows(ids: np.ndarray, rows: int) -> None:
    if len(wrong := ids[ids >= rows]):
        raise DataError(
            f"tokenizer: the text has the token id {int(wrong[0])}, expected from 0 to {rows - 1}: "
            f"the model has {rows} rows"
        )


def _together(placed: list[Window], count: int) -> Iterator[list[Window]]:
    for first in range(0, len(placed), count):
        yield placed[first : first + count]


def _losses(model: HybridLM, rows: Tensor) -> Tensor:
    """The loss of each prediction, in nats: rows [B, T + 1] of ids -> [B, T] float64 on the CPU."""
    device = model.embedding.weight.device
    rows = rows.to(device)
    hidden = model.hidden(rows[:, :-1])
    parts = [
        F.cross_entropy(
            model.logits(hidden[:, first : first + _TOKENS]).flatten(0, 1).float(),
            rows[:, 1 + first : 1 + first + _TOKENS].flatten(),
            reduction="none",
        ).view(len(rows), -1)
        for first in range(0, hidden.shape[1], _TOKENS)
    ]
    return torch.cat(parts, 1).double().cpu()
