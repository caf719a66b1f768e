"""Synthetic tasks beside the text loss: what a short run on text hides of a model's memory.

After the suite of Poli et al. 2024 (Mechanistic Architecture Design, arXiv 2403.17844). A task's sequences come from a seed. The
architecture is trained on each task from random weights, with its own layers and the task's small vocabulary, and scored on sequences
that it was not trained on.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from operators.architecture import Architecture
from operators.base.errors import DivergedError
from operators.base.threads import torch_threads
from operators.model import HybridLM
from proxy_train.task_settings import TaskName, TaskScore, TaskSettings

UNSCORED = -100  # a target that counts neither in the loss nor in the accuracy


class Sequences(NamedTuple):
    """inputs and targets [N, T] int64: the target at a position is what a model should answer after reading up to there, or UNSCORED."""

    inputs: np.ndarray
    targets: np.ndarray


def recall(settings: TaskSettings, count: int, *, rng: Generator) -> Sequences:
    """In-context recall: pairs of a key and its value, side by side; what followed this key before?

    Keys are 0 … symbols - 1, drawn with replacement, values symbols … 2 symbols - 1. Which value a key has is a permutation drawn anew
    for every sequence. Scored: every key that occurred before in its sequence. An odd last token is a key.
    """
    return _recall(settings, count, 0.0, rng)


def noisy_recall(settings: TaskSettings, count: int, *, rng: Generator) -> Sequences:
    """In-context recall with noise between the pairs: half of the places of pairs hold two tokens of 2 symbols … 3 symbols - 1 instead,
    which have no meaning. Scored as in `recall`.
    """
    return _recall(settings, count, 0.5, rng)


def _recall(settings: TaskSettings, count: int, noise: float, rng: Generator) -> Sequences:
    symbols, places = settings.symbols, (settings.sequence_length + 1) // 2
    keys = rng.integers(symbols, size=(count, places))
    values = rng.permuted(np.tile(np.arange(symbols, 2 * symbols), (count, 1)), axis=1)
    pairs = np.stack([keys, np.take_along_axis(values, keys, axis=1)], axis=2)
    noisy = rng.random((count, places)) < noise
    pairs[noisy] = rng.integers(2 * symbols, 3 * symbols, size=(int(noisy.sum()), 2))
    before = np.tril(np.ones((places, places), dtype=bool), -1) & ~noisy[:, None, :]
    seen = ((keys[:, :, None] == keys[:, None, :]) & before).any(2) & ~noisy
    targets = np.full_like(pairs, UNSCORED)
    targets[seen, 0] = pairs[seen, 1]
    length = settings.sequence_length
    return Sequences(pairs.reshape(count, -1)[:, :length], targets.reshape(count, -1)[:, :length])


def copy(settings: TaskSettings, count: int, *, rng: Generator) -> Sequences:
    """Selective copying: `copied` symbols lie at random among blanks; at the end they are to be told in their order.

    Symbols are 0 … symbols - 1, drawn with replacement, `symbols` is the blank, `symbols` + 1 asks: the last `copied` tokens are that, and
    they alone are scored, the n-th with the n-th symbol of the sequence.
    """
    told, read = settings.copied, settings.sequence_length - settings.copied
    wanted = rng.integers(settings.symbols, size=(count, told))
    places = np.sort(np.argsort(rng.random((count, read)), axis=1)[:, :told], axis=1)
    inputs = np.full((count, settings.sequence_length), settings.symbols)
    np.put_along_axis(inputs, places, wanted, axis=1)
    inputs[:, read:] = settings.symbols + 1
    targets = np.full_like(inputs, UNSCORED)
    targets[:, read:] = wanted
    return Sequences(inputs, targets)


@dataclass(frozen=True)
class Task:
    """draw(settings, count, rng=…) makes sequences. vocabulary(symbols): ids are below it. Answers are one of `symbols` each."""

    draw: Callable[..., Sequences]
    vocabulary: Callable[[int], int]


TASKS: Mapping[TaskName, Task] = {
    "recall": Task(recall, lambda symbols: 2 * symbols),
    "noisy_recall": Task(noisy_recall, lambda symbols: 3 * symbols),
    "copy": Task(copy, lambda symbols: symbols + 2),
}


def train_task(
    name: TaskName, architecture: Architecture, settings: TaskSettings, *, seed: int, device: str = "cpu"
) -> TaskScore:
    """Trains the architecture's layers on one task from random weights and scores them on held-out sequences.

    The seed fixes weights and sequences. On the CPU it uses one thread, so that the score is the same to the last bit; the number of
    threads and torch's random state are afterwards as they were.
    Raises BackendError, and DivergedError where a loss is not finite.
    """
    start, task = time.perf_counter(), TASKS[name]
    # Independent streams: what is scored depends on neither the number of steps nor the batch.
    training, held_out = np.random.default_rng(seed).spawn(2)
    forked = [torch.device(device)] if device != "cpu" else []
    with torch.random.fork_rng(devices=forked), torch_threads(1):
        torch.manual_seed(seed)
        model = HybridLM(
            architecture.model_copy(update={"vocabulary": task.vocabulary(settings.symbols)}),
            device=device,
        )
        _fit(model, task, settings, training)
        sequences = task.draw(settings, settings.scored_sequences, rng=held_out)
        accuracy, loss = score_task(model, sequences, batch_size=settings.batch_size)
    if not math.isfinite(loss):
        raise DivergedError(f"task {name}: the loss of the held-out answers is {loss}, expected a finite one")
    return TaskScore(
        task=name,
        accuracy=accuracy,
        chance=1 / settings.symbols,
        loss=loss,
        tokens=settings.steps * settings.batch_size * settings.sequence_length,
        seconds=time.perf_counter() - start,
        backends=model.backends,
        seed=seed,
    )


def _fit(model: HybridLM, task: Task, settings: TaskSettings, rng: Generator) -> None:
    parameters, device = list(model.parameters()), model.embedding.weight.device
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.1, cycle_momentum=False
    )
    for _ in range(settings.steps):
        inputs, targets = map(torch.from_numpy, task.draw(settings, settings.batch_size, rng=rng))
        expected = targets[targets != UNSCORED].to(device)
        loss = nn.functional.cross_entropy(
            _answers(model, inputs.to(device), targets), expected, reduction="sum"
        )
        (loss / max(1, len(expected))).backward()  # a small batch may ask for nothing
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()


def _answers(model: HybridLM, inputs: Tensor, targets: Tensor) -> Tensor:
    """Logits [answers, vocabulary] where something is scored: the head works for those positions alone."""
    asked = (targets != UNSCORED).to(inputs.device)
    return model.logits(model.hidden(inputs)[asked]).float()


def score_task(model: HybridLM, sequences: Sequences, *, batch_size: int) -> tuple[float, float]:
    """The share of answers that are the likeliest token of the whole vocabulary, and the loss in nats per answer."""
    right, nats, device = 0, 0.0, model.embedding.weight.device
    with torch.no_grad():
        for first in range(0, len(sequences.inputs), batch_size):
            inputs, targets = (torch.from_numpy(part[first : first + batch_size]) for part in sequences)
            logits, expected = (
                _answers(model, inputs.to(device), targets),
                targets[targets != UNSCORED].to(device),
            )
            right += int((logits.argmax(-1) == expected).sum())
            nats += nn.functional.cross_entropy(logits, expected, reduction="sum").item()
    scored = int((sequences.targets != UNSCORED).sum())
    return right / scored, nats / scored
