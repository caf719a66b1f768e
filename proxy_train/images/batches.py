"""Deterministic batches of prepared images with their questions, for one vision-language model."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators.base.errors import DataError
from operators.vision.preprocess import normalized
from operators.vision.vision_language import VisionLanguage
from proxy_train.images.image_corpus import Examples, ImageCorpus
from proxy_train.tasks import UNSCORED


@dataclass(frozen=True)
class ImageBatch:
    """Examples side by side.

    images: normalized, -1 to 1: [B, 3, size, size].
    tokens: placeholders, question and answer: [B, T] int64; padding behind them.
    targets: the next token where it is one of the answer, else UNSCORED: [B, T] int64.
    prompts: tokens before the answer, in each row.
    """

    images: Tensor
    tokens: Tensor
    targets: Tensor
    prompts: tuple[int, ...]


def require_fit(corpus: ImageCorpus, value: VisionLanguage) -> None:
    """Raises DataError where a model cannot read these images or tokens."""
    manifest, size = corpus.manifest, value.tower.image_size
    if size > manifest.image_size:
        raise DataError(
            f"tower.image_size {size}: expected at most {manifest.image_size}, as the images are prepared"
        )
    if manifest.largest_token >= value.language.vocabulary:
        raise DataError(
            f"language.vocabulary {value.language.vocabulary}: expected more than {manifest.largest_token}, "
            "the largest id of the questions and answers"
        )
    if value.image_token <= manifest.largest_token and value.image_token in corpus.examples("train").ids:
        raise DataError(
            f"image_token {value.image_token}: expected an id that no question or answer has, such as "
            f"{manifest.largest_token + 1}"
        )


def train_batches(
    corpus: ImageCorpus, value: VisionLanguage, *, batch_size: int, steps: int, seed: int
) -> Iterator[ImageBatch]:
    """Batches of training examples; an epoch has each once, in an order that the seed fixes.

    Raises DataError, see `require_fit`.
    """
    require_fit(corpus, value)
    examples, rng = corpus.examples("train"), np.random.default_rng(seed)
    waiting = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(len(examples))])
        yield _batch(corpus, value, examples, waiting[:batch_size])
        waiting = waiting[batch_size:]


def validation_batches(
    corpus: ImageCorpus, value: VisionLanguage, *, batch_size: int, examples: int
) -> Iterator[ImageBatch]:
    """Batches of the first validation examples, in a fixed mixture of images; B ≤ batch_size.

    examples: how many, at most.

    Raises DataError, see `require_fit`.
    """
    require_fit(corpus, value)
    held = corpus.examples("validation")
    chosen = np.random.default_rng(0).permutation(len(held))[:examples]
    for first in range(0, len(chosen), batch_size):
        yield _batch(corpus, value, held, chosen[first : first + batch_size])


def _batch(corpus: ImageCorpus, value: VisionLanguage, examples: Examples, numbers: np.ndarray) -> ImageBatch:
    images = normalized(corpus.pixels(examples.rows[numbers, 0]), value.tower.image_size)
    placeholders, parts = np.full(value.image_tokens, value.image_token), []
    for number in numbers.tolist():
        question, answer = examples.tokens(number)
        parts.append((np.concatenate([placeholders, question]), answer))
    longest = max(len(prompt) + len(answer) for prompt, answer in parts)
    tokens = np.full((len(parts), longest), corpus.manifest.end, dtype=np.int64)
    targets = np.full((len(parts), longest), UNSCORED, dtype=np.int64)
    for row, (prompt, answer) in enumerate(parts):
        tokens[row, : len(prompt)] = prompt
        tokens[row, len(prompt) : len(prompt) + len(answer)] = answer
        targets[row, len(prompt) - 1 : len(prompt) + len(answer) - 1] = answer
    return ImageBatch(
        images, torch.from_numpy(tokens), torch.from_numpy(targets), tuple(len(prompt) for prompt, _ in parts)
    )
