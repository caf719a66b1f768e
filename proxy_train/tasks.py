"""Synthetic tasks, which show what a short run on text does not: how much a model remembers.

They follow the suite of Poli et al. 2024 (Mechanistic Architecture Design, arXiv 2403.17844). A task draws
its sequences from a seed. The architecture is trained on each task from random weights, with its own layers
and the task's small vocabulary. It is scored on sequences that it was not trained on.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from operators.architecture import Architecture
from operators.base.errors import DivergedError
from operators.base.threads import torch_threads
from operators.model import HybridLM
from proxy_train.adamw import AdamW
from proxy_train.task_settings import TaskName, TaskScore, TaskSettings

UNSCORED = -100  # a target that counts neither in the loss nor in the accuracy


class Sequences(NamedTuple):
    """Sequences of one task.

    inputs: token ids [N, T] int64.
    targets: what a model should answer after it has read up to this position, or UNSCORED: [N, T] int64.
    """

    inputs: np.ndarray
    targets: np.ndarray


def recall(settings: TaskSettings, count: int, *, rng: Generator) -> Sequences:
    """In-context recall: a sequence of pairs, each a key and its value; what followed this key before?

    Keys are 0 … symbols - 1, drawn with replacement. Values are symbols … 2 symbols - 1. Every sequence draws
    anew which value a key has (a permutation). Scored is every key that occurred before in its sequence. In a
    sequence of odd length the last token is a key.
    """
    return _recall(settings, count, 0.0, rng)


def noisy_recall(settings: TaskSettings, count: int, *, rng: Generator) -> Sequences:
    """In-context recall with noise between the pairs.

    Half of the places of pairs hold two tokens of 2 symbols … 3 symbols - 1 instead, which have no meaning.
    The rule for scored positions is that of `recall`.
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
    """Selective copying: symbols lie at random among blanks; at the end the model writes them in their order.

    Symbols are 0 … symbols - 1, drawn with replacement. The id `symbols` is the blank, `symbols`
    + 1 the request. The last `copied` tokens are requests, and they alone are scored: the n-th
    asks for the n-th symbol.
    """
    copied, read = settings.copied, settings.sequence_length - settings.copied
    wanted = rng.integers(settings.symbols, size=(count, copied))
    places = np.sort(np.argsort(rng.random((count, read)), axis=1)[:, :copied], axis=1)
    inputs = np.full((count, settings.sequence_length), settings.symbols)
    np.put_along_axis(inputs, places, wanted, axis=1)
    inputs[:, read:] = settings.symbols + 1
    targets = np.full_like(inputs, UNSCORED)
    targets[:, read:] = wanted
    return Sequences(inputs, targets)


@dataclass(frozen=True)
class Task:
    """A task; each of its answers is one of `symbols` ids.

    draw: called as draw(settings, count, rng=…) -> Sequences.
    vocabulary: called as vocabulary(symbols) -> a number that every id is below.
    """

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

    On the CPU it uses one thread, so that the score is the same to the last bit. Torch's number of threads
    and random state are put back at the end.

    seed: fixes weights and sequences.
    device: where to train, as torch writes it.

    Raises BackendError where a backend cannot be used, and DivergedError where a loss is not finite.
    """
    start, task = time.perf_counter(), TASKS[name]
    # Two independent streams, so that the scored sequences depend on neither the
    # number of steps nor the batch.
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
    """Trains the model in place by AdamW without decay."""
    parameters, device = list(model.parameters()), model.embedding.weight.device
    group: dict[str, Any] = {"params": parameters, "weight_decay": 0.0}
    optimizer = AdamW([group], betas=(0.9, 0.98))
    for step in range(settings.steps):
        inputs, targets = map(torch.from_numpy, task.draw(settings, settings.batch_size, rng=rng))
        expected = targets[targets != UNSCORED].to(device)
        loss = nn.functional.cross_entropy(
            _answers(model, inputs.to(device), targets), expected, reduction="sum"
        )
        (loss / max(1, len(expected))).backward()  # a small batch may ask for nothing
        nn.utils.clip_grad_norm_(parameters, 1.0)
        group["lr"] = settings.learning_rate * share_of_rate(step, settings.steps)
        optimizer.step()
        model.zero_grad()


def share_of_rate(step: int, steps: int) -> float:
    """The learning rate of a step as a share of its peak: it rises for a tenth of the steps, then falls.

    Both ways are half a cosine, from a 25th of the peak and to a 10,000th of that (Smith & Topin 2017,
    arXiv 1708.07120).

    step: 0 … steps - 1
    """
    begin, end = 1 / 25, 1 / 250_000
    peak = 0.1 * (steps + 1) - 1  # the step of the peak, which may lie between two
    if step < peak:
        return 1 + (begin - 1) / 2 * (1 + math.cos(math.pi * step / peak))
    return end + (1 - end) / 2 * (1 + math.cos(math.pi * (step - peak) / (steps - peak)))


def _answers(model: HybridLM, inputs: Tensor, targets: Tensor) -> Tensor:
    """Logits [answers, vocabulary] of the scored positions; the head computes no others."""
    asked = (targets != UNSCORED).to(inputs.device)
    return model.logits(model.hidden(inputs)[asked]).float()


def score_task(model: HybridLM, sequences: Sequences, *, batch_size: int) -> tuple[float, float]:
    """The accuracy and the loss in nats per answer.

    An answer counts as right where it is the likeliest token of the whole vocabulary.
    """
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
