"""Chooses the next token of a text by a model's logits: the most likely one, or one drawn at random."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.base.errors import ConfigError, DivergedError

# The parts of a vocabulary whose maxima are taken in parallel, see `most_likely`.
_VOCABULARY_PARTS = 256


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    temperature: the logits are divided by it, from 0 on; 0 always takes the most likely token.
    top_k: only the k most likely tokens may be drawn; None sets no bound.
    top_p: only the most likely tokens may be drawn, as many as are needed for a probability of p together;
        above 0, at most 1.
    seed: fixes what is drawn.

    Raises ConfigError.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature: expected a finite number from 0 on, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k: expected at least 1, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: expected a number above 0, at most 1, got {self.top_p}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed: expected from 0 to {2**63 - 1}, got {self.seed}")


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The probability of each token to be chosen: logits [vocabulary] -> [vocabulary] float64.

    Of equally likely tokens, those of lower ids are kept first.

    Raises DivergedError for logits that are not finite.
    """
    logits = logits.double()  # in which the smallest temperature is not 0
    if not bool(torch.isfinite(logits).all()):
        raise DivergedError("logits: expected finite numbers, got NaN or infinity: the weights are damaged")
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).double()
    order = logits.argsort(descending=True, stable=True)
    # The largest logit becomes 0 before the division, so that none becomes infinite at a small temperature.
    ordered = ((logits - logits[order[0]]) / sampling.temperature)[order]
    if sampling.top_k is not None:
        ordered[sampling.top_k :] = -torch.inf
    ordered = ordered.softmax(0)
    if sampling.top_p < 1:
        before = ordered.cumsum(0) - ordered
        ordered = torch.where(before < sampling.top_p, ordered, 0)
    kept = torch.zeros_like(ordered).scatter(0, order, ordered)
    return kept / kept.sum()


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """The id of the next token: logits [vocabulary].

    generator: on the CPU, so that a seed draws the same numbers on every device.

    Raises DivergedError for logits that are not finite.
    """
    chances = probabilities(logits.cpu(), sampling)
    return int(torch.multinomial(chances, 1, generator=generator))


def most_likely(logits: Tensor) -> Tensor:
    """The index of the largest logit in each row ([B, vocabulary] -> [B]).

    A vocabulary with parts of equal size is searched in two stages: torch gives a row of fewer than 131,072
    numbers to a single multiprocessor.
    """
    parts = math.gcd(logits.shape[-1], _VOCABULARY_PARTS)
    if parts == 1:
        return logits.argmax(-1)
    best, within = logits.unflatten(-1, (parts, -1)).max(-1)
    part = best.argmax(-1, keepdim=True)
    return torch.add(within.gather(-1, part), part, alpha=logits.shape[-1] // parts)[:, 0]
