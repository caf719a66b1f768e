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

# On a GPU each shape of a batch has a CUDA graph of its own. So rows have a multiple of so many tokens, and
# answers a multiple of so many, which leaves few shapes.
GPU_TOKENS, GPU_ANSWER = 16, 4


@dataclass(frozen=True)
class ImageBatch:
    """Examples side by side.

    images: normalized, -1 to 1: [B, 3, size, size] float32, on the device that was asked for.
    tokens: placeholders, question and answer: [B, T] int64; padding behind them.
    places: where in a row each token of the answer is predicted: [B, A] int64; 0 behind them.
    targets: the tokens of the answer: [B, A] int64; UNSCORED behind them.
    prompts: tokens before the answer, in each row.
    """

    images: Tensor
    tokens: Tensor
    places: Tensor
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
    corpus: ImageCorpus,
    value: VisionLanguage,
    *,
    batch_size: int,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Iterator[ImageBatch]:
    """Batches of training examples; an epoch has each once, in an order that the seed fixes.

    device: where the images lie; tokens are on the CPU.

    Raises DataError, see `require_fit`.
    """
    require_fit(corpus, value)
    examples, rng = corpus.examples("train"), np.random.default_rng(seed)
    waiting = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(len(examples))])
        yield _batch(corpus, value, examples, waiting[:batch_size], device)
        waiting = waiting[batch_size:]


def validation_batches(
    corpus: ImageCorpus,
    value: VisionLanguage,
    *,
    batch_size: int,
    examples: int,
    device: torch.device | str = "cpu",
) -> Iterator[ImageBatch]:
    """Batches of the first validation examples, in a fixed mixture of images; B ≤ batch_size.

    examples: how many, at most.
    device: where the images lie; tokens are on the CPU.

    Raises DataError, see `require_fit`.
    """
    require_fit(corpus, value)
    held = corpus.examples("validation")
    chosen = np.random.default_rng(0).permutation(len(held))[:examples]
    for first in range(0, len(chosen), batch_size):
        yield _batch(corpus, value, held, chosen[first : first + batch_size], device)


def _batch(
    corpus: ImageCorpus,
    value: VisionLanguage,
    examples: Examples,
    numbers: np.ndarray,
    device: torch.device | str,
) -> ImageBatch:
    pixels = corpus.pixels(examples.rows[numbers, 0])
    placeholders, parts = np.full(value.image_tokens, value.image_token), []
    for number in numbers.tolist():
        question, answer = examples.tokens(number)
        parts.append((np.concatenate([placeholders, question]), answer))
    longest = max(len(prompt) + len(answer) for prompt, answer in parts)
    most = max(len(answer) for _, answer in parts)
    if torch.device(device).type == "cuda":
        longest += -longest % GPU_TOKENS
        most += -most % GPU_ANSWER
    tokens = np.full((len(parts), longest), corpus.manifest.end, dtype=np.int64)
    places = np.zeros((len(parts), most), dtype=np.int64)
    targets = np.full((len(parts), most), UNSCORED, dtype=np.int64)
    for row, (prompt, answer) in enumerate(parts):
        begin = len(prompt)
        tokens[row, :begin] = prompt
        tokens[row, begin : begin + len(answer)] = answer
        places[row, : len(answer)] = np.arange(begin - 1, begin + len(answer) - 1)
        targets[row, : len(answer)] = answer
    return ImageBatch(
        normalized(pixels, value.tower.image_size, device=device),
        torch.from_numpy(tokens),
        torch.from_numpy(places),
        torch.from_numpy(targets),
        tuple(len(prompt) for prompt, _ in parts),
    )
