"""The short training run that says how well an architecture learns."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from operators.architecture import Architecture
from operators.errors import DataError, DivergedError
from operators.model import HybridLM
from operators.value import Value
from proxy_train.data import Corpus, batches, bits_per_byte, require_windows, validation_batches
from proxy_train.optim import build_optimizer, schedule, set_rate

CURVE_POINTS = 50
DIVERGED = 1.5  # a training loss beyond this multiple of the first one does not come back


class ProxySettings(Value):
    """How each candidate is trained; the `proxy:` section of a run.

    tokens: the budget; as many whole batches of batch_size × sequence_length are trained as it holds.
    learning_rate: at its peak (what it means for which weights: `optim.parameter_groups`). warmup_fraction: of the steps.
    weight_decay: of matrices. gradient_clip: the largest norm of a gradient.
    validation_tokens: how many are scored at the end, at most.
    """

    tokens: Annotated[int, Field(ge=1)] = 150_000
    batch_size: Annotated[int, Field(ge=1)] = 2
    sequence_length: Annotated[int, Field(ge=2)] = 256
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    validation_tokens: Annotated[int, Field(ge=1)] = 32_768

    @model_validator(mode="after")
    def _one_batch_at_least(self) -> Self:
        if self.tokens < self.batch_size * self.sequence_length:
            batch = self.batch_size * self.sequence_length
            raise ValueError(f"tokens: expected at least one batch of {batch} (batch_size × sequence_length), got {self.tokens}")
        return self

    @property
    def steps(self) -> int:
        """How many whole batches the budget holds."""
        return self.tokens // (self.batch_size * self.sequence_length)


class ProxyScore(Value):
    """How well an architecture learned.

    loss: nats per token on the validation text; perplexity: its exponential; bits_per_byte: the same information for each byte of text.
    unigram_loss: what knowing only the tokens' frequencies would lose, in nats per token, over the whole validation text.
    tokens, steps: trained. seconds: wall time of the training steps, without building and scoring the model; tokens_per_s: over them.
    curve: (tokens trained, mean training loss since the point before). backends: operator -> backend.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    unigram_loss: float
    tokens: int
    steps: int
    seconds: float
    tokens_per_s: float
    curve: tuple[tuple[int, float], ...]
    backends: dict[str, str]
    device: str
    seed: int

    def metrics(self) -> dict[str, float]:
        """The figures that can be objectives."""
        return {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}


@dataclass(frozen=True)
class Trained:
    """The score, and the weights that have it: `HybridLM.load_state_dict` takes them (float32, on the CPU)."""

    score: ProxyScore
    weights: dict[str, Tensor]


def train(
    architecture: Architecture,
    corpus: Corpus,
    settings: ProxySettings,
    *,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    on_step: Callable[[int, float], None] | None = None,
) -> Trained:
    """Trains an architecture from random weights on a fixed budget of tokens and scores it on the validation text.

    The seed fixes weights and batches; on the CPU with one thread the score is the same to the last bit. `threads` is how many CPU
    threads torch may use; that setting and torch's random state are afterwards as they were.
    on_step(step from 1, training loss in nats per token) is called after every step.
    Raises DataError where the corpus does not fit (see `check_corpus`), BackendError, and DivergedError: as soon as a training loss is
    not finite or above 1.5 times the first one, and where the validation loss ends no lower than the first training loss.
    """
    check_corpus(architecture, corpus, settings)
    with _own_torch_state(seed, device, threads):
        model = HybridLM(architecture, device=device)
        losses, seconds = _fit(model, corpus, settings, seed, on_step)
        loss, per_byte = evaluate(model, corpus, settings)
    if not loss < losses[0]:
        raise DivergedError(
            f"loss {loss:.4g} on the validation text after {len(losses)} steps: expected below the first one, {losses[0]:.4g}"
        )
    tokens = settings.steps * settings.batch_size * settings.sequence_length
    score = ProxyScore(
        loss=loss,
        perplexity=math.exp(loss),
        bits_per_byte=per_byte,
        unigram_loss=corpus.unigram_loss,
        tokens=tokens,
        steps=settings.steps,
        seconds=seconds,
        tokens_per_s=tokens / seconds,
        curve=_curve(losses, settings.batch_size * settings.sequence_length),
        backends=model.backends,
        device=device,
        seed=seed,
    )
    return Trained(score, {name: tensor.detach().float().cpu().clone() for name, tensor in model.state_dict().items()})


def check_corpus(architecture: Architecture, corpus: Corpus, settings: ProxySettings) -> None:
    """Raises DataError where the vocabularies differ or the text is too short for one batch."""
    if architecture.vocabulary != corpus.vocabulary:
        raise DataError(
            f"vocabulary: the prepared data has {corpus.vocabulary}, the architecture {architecture.vocabulary}: expected the same"
        )
    require_windows(corpus, settings.sequence_length)


def evaluate(model: HybridLM, corpus: Corpus, settings: ProxySettings) -> tuple[float, float]:
    """Loss in nats per token, and bits per byte, over the first `validation_tokens` tokens of the validation text.

    They are read in windows of sequence_length (see `validation_batches`). The bytes are exactly those of the tokens that are scored:
    the end of a document costs bits and counts no byte. Raises DataError, see `check_corpus`.
    """
    check_corpus(model.architecture, corpus, settings)
    device = model.embedding.weight.device
    lengths = torch.from_numpy(corpus.token_bytes().astype(np.int64))
    nats, scored, text_bytes = 0.0, 0, 0
    with torch.no_grad():
        for inputs, targets in validation_batches(
            corpus, batch_size=settings.batch_size, sequence_length=settings.sequence_length, tokens=settings.validation_tokens
        ):
            loss = nn.functional.cross_entropy(model(inputs.to(device)).flatten(0, 1).float(), targets.flatten().to(device))
            nats += loss.item() * targets.numel()
            scored += targets.numel()
            text_bytes += int(lengths[targets].sum())
    return nats / scored, bits_per_byte(nats, text_bytes)


def _fit(
    model: HybridLM, corpus: Corpus, settings: ProxySettings, seed: int, on_step: Callable[[int, float], None] | None
) -> tuple[list[float], float]:
    """The training loss of every step, and the wall seconds that all took."""
    optimizer = build_optimizer(model, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    parameters, device = list(model.parameters()), model.embedding.weight.device
    losses: list[float] = []
    start = time.perf_counter()
    for step, (inputs, targets) in enumerate(
        batches(corpus, batch_size=settings.batch_size, sequence_length=settings.sequence_length, steps=settings.steps, seed=seed)
    ):
        set_rate(optimizer, schedule(step, steps=settings.steps, warmup_fraction=settings.warmup_fraction))
        logits = model(inputs.to(device))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten())
        losses.append(loss.item())
        if not losses[-1] <= DIVERGED * losses[0]:
            raise DivergedError(
                f"loss {losses[-1]:.4g} at step {step + 1}: expected at most {DIVERGED} times the first one, {losses[0]:.4g}"
            )
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        if on_step is not None:
            on_step(step + 1, losses[-1])
    return losses, time.perf_counter() - start


def _curve(losses: list[float], tokens_per_step: int) -> tuple[tuple[int, float], ...]:
    """At most CURVE_POINTS means over runs of steps of about equal length."""
    ends = sorted({round(len(losses) * point / CURVE_POINTS) for point in range(1, CURVE_POINTS + 1)} - {0})
    return tuple(
        (end * tokens_per_step, math.fsum(losses[start:end]) / (end - start)) for start, end in zip([0, *ends], ends, strict=False)
    )


@contextmanager
def _own_torch_state(seed: int, device: str, threads: int) -> Iterator[None]:
    """Seeds torch and sets its number of threads for a while; both are put back."""
    threads_before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[torch.device(device)] if device != "cpu" else []):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads_before)
