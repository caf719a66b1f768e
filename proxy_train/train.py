"""The short training run that says how well an architecture learns."""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from operators.architecture import Architecture
from operators.base.broken_device import faults_told
from operators.base.errors import ConfigError, DataError, DivergedError
from operators.base.freed_memory import keep_freed_memory
from operators.base.threads import torch_threads
from operators.cost import training_flops
from operators.kernels.libraries import deterministic
from operators.model import HybridLM
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.text.corpus import Corpus
from proxy_train.text.data import bits_per_byte, require_windows, validation_batches
from proxy_train.text.unigram import scored_unigram_loss
from proxy_train.trainer import Hooks, Plan, Start, Trainer
from proxy_train.validation import BatchLoss

CURVE_POINTS = 50  # enough to draw the curve; a run of 100,000 steps keeps no more in its ledger


@dataclass(frozen=True)
class Trained:
    """What a training leaves.

    score: how well the architecture learned.
    weights: the weights that have this score, by name (float32, on the CPU), for `HybridLM.load_state_dict`.
    losses: training loss of every step (nats per token).
    """

    score: ProxyScore
    weights: dict[str, Tensor]
    losses: tuple[float, ...] = ()


def train(
    architecture: Architecture,
    corpus: Corpus,
    settings: ProxySettings,
    *,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    on_step: Callable[[int, float], None] | None = None,
    pause: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
    keep_checkpoint: bool = False,
    start: Start | None = None,
    rungs: Sequence[int] = (),
    on_rung: Callable[[int, float], None] | None = None,
    spares_memory: bool = True,
) -> Trained:
    """Trains an architecture on a budget of tokens and scores it on the validation text.

    On a GPU the model is in bfloat16 with float32 masters, on a CPU in float32. On the CPU with one thread
    the score is the same to the last bit. Where a GPU's memory runs out the training starts anew with fewer
    rows in a pass (`trainer.Plan`). Torch's random state and number of threads are put back at the end.

    seed: fixes weights and batches.
    device: where to train, as torch writes it.
    threads: CPU threads that torch may use.
    on_step: called as on_step(step from 1, training loss in nats per token) for every step, on a
        GPU up to 20 steps later.
    pause: called between steps with the device idle, on a GPU every 20 steps. It returns the seconds that are
        not to count as training time.
    checkpoint: a file that is written about once a minute and removed at the end. If it is there, the
        training goes on from it.
    keep_checkpoint: whether the checkpoint stays at the end, with the final state of the optimizer.
    start: weights to go on from; None begins with random ones.
    rungs: numbers of tokens below the budget at which on_rung is called.
    on_rung: called as on_rung(tokens, validation loss in nats per token). The loss is the score of
        the smaller budget of as many tokens if there is one, else the loss under way. What on_rung
        raises ends the training.
    spares_memory: whether to train anew with fewer rows in a pass where memory runs out.

    Raises torch.OutOfMemoryError where the memory does not suffice.
    Raises DataError where the corpus does not fit (see `check_corpus`) or a checkpoint
    cannot be used or written.
    Raises ConfigError where weights are normalized and the architecture's head is not.
    Raises BackendError where a backend cannot be used.
    Raises BrokenDeviceError where an error leaves the GPU of no use to this process.
    Raises DivergedError where a training loss is not finite or above 1.5 times the first one, and where the
    validation loss of a model that began with random weights ends no lower than the first training loss.
    """
    check_corpus(architecture, corpus, settings.sequence_length)
    if settings.weight_normalization and not architecture.normalized_head:
        raise ConfigError(
            "proxy.weight_normalization: expected an architecture with normalized_head: true, got one without"
        )
    plan: Plan | None = Plan(settings.micro_batch_size or settings.batch_size)
    while plan is not None:
        try:
            with own_torch_state(seed, device, threads):
                hooks = Hooks(on_step, pause, tuple(rungs), on_rung)
                return _train(
                    architecture,
                    corpus,
                    settings,
                    plan,
                    seed=seed,
                    device=device,
                    hooks=hooks,
                    checkpoint=checkpoint,
                    keep_checkpoint=keep_checkpoint,
                    start=start,
                )
        except torch.OutOfMemoryError as error:
            if not spares_memory:
                raise
            plan, reason = plan.thriftier(settings.batch_size), str(error)
        gc.collect()  # frees what the failed attempt held, now that its traceback is gone
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise torch.OutOfMemoryError(f"one row at a time, with layers computed again: {reason}")


def _train(
    architecture: Architecture,
    corpus: Corpus,
    settings: ProxySettings,
    plan: Plan,
    *,
    seed: int,
    device: str,
    hooks: Hooks,
    checkpoint: Path | None,
    keep_checkpoint: bool,
    start: Start | None,
) -> Trained:
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    model = HybridLM(architecture, device=device, dtype=dtype)

    def score(model: HybridLM) -> tuple[float, float]:
        return evaluate(
            model,
            corpus,
            sequence_length=settings.sequence_length,
            tokens=settings.validation_tokens,
            rows=plan.micro_batch_size,
        )

    identity = {
        "architecture": architecture.digest(),
        "settings": settings.model_dump(mode="json"),
        "data": corpus.digest,
        "seed": seed,
        "device": torch.device(device).type,
    }
    if start is not None:  # a checkpoint of an earlier version has no such key
        identity |= {"start": start.digest, "batches_before": start.batches}
    fitted = Trainer(
        model,
        corpus,
        settings,
        plan,
        seed=seed,
        score=score,
        hooks=hooks,
        file=checkpoint,
        identity=identity,
        keep=keep_checkpoint,
        start=start,
    ).fit()
    loss, per_byte = score(model)
    if start is not None and not math.isfinite(loss):
        raise DivergedError(f"loss {loss:.4g} on the validation text: expected a finite number")
    if start is None and not loss < fitted.losses[0]:
        raise DivergedError(
            f"loss {loss:.4g} on the validation text after {len(fitted.losses)} steps: "
            f"expected less than the first step's, {fitted.losses[0]:.4g}"
        )
    measured = ProxyScore(
        loss=loss,
        perplexity=math.exp(loss),
        bits_per_byte=per_byte,
        unigram_loss=scored_unigram_loss(
            corpus, sequence_length=settings.sequence_length, tokens=settings.validation_tokens
        ),
        tokens=settings.steps * settings.batch_tokens,
        steps=settings.steps,
        seconds=fitted.seconds,
        startup_s=fitted.startup_s,
        tokens_per_s=fitted.tokens_per_s,
        flops_per_s=fitted.tokens_per_s * training_flops(architecture, settings.sequence_length),
        curve=curve(fitted.losses, settings.batch_tokens),
        budgets=fitted.budgets,
        backends=model.backends,
        dtype=str(dtype).removeprefix("torch."),
        execution=fitted.execution,
        micro_batch_size=plan.micro_batch_size,
        recomputed=plan.recompute,
        device=device,
        seed=seed,
    )
    return Trained(measured, fitted.weights, tuple(fitted.losses))


def check_corpus(architecture: Architecture, corpus: Corpus, sequence_length: int) -> None:
    """Raises DataError where the vocabularies differ or the text is too short for one batch.

    sequence_length: tokens of a row.
    """
    if architecture.vocabulary != corpus.vocabulary:
        raise DataError(
            f"vocabulary: the prepared data has {corpus.vocabulary}, "
            f"the architecture {architecture.vocabulary}: expected the same"
        )
    require_windows(corpus, sequence_length)


def evaluate(
    model: HybridLM, corpus: Corpus, *, sequence_length: int, tokens: int, rows: int
) -> tuple[float, float]:
    """Scores a model on the first tokens of the validation text.

    Returns the loss in nats per token, and bits per byte. The bytes are exactly the scored tokens':
    the end of a document costs bits and counts no byte.

    sequence_length: tokens of a window, see `validation_batches`.
    tokens: how many are scored.
    rows: windows in one pass.

    Raises DataError, see `check_corpus`.
    """
    check_corpus(model.architecture, corpus, sequence_length)
    device = model.embedding.weight.device
    lengths = torch.from_numpy(corpus.token_bytes().astype(np.int64))
    text_bytes = 0
    loss_of = BatchLoss(model)
    losses: list[Tensor] = []
    counts: list[int] = []
    with torch.no_grad():
        for inputs, targets in validation_batches(
            corpus, batch_size=rows, sequence_length=sequence_length, tokens=tokens
        ):
            losses.append(loss_of(inputs.to(device), targets.to(device)))
            counts.append(targets.numel())
            text_bytes += int(lengths[targets].sum())
    nats = 0.0
    # The sum must be the same to the last bit on every version of Python, and `sum` is not.
    for loss, count in zip(torch.stack(losses).tolist(), counts, strict=True):
        nats += loss * count
    return nats / sum(counts), bits_per_byte(nats, text_bytes)


def curve(losses: list[float], tokens_per_step: int) -> tuple[tuple[int, float], ...]:
    """At most CURVE_POINTS points (tokens, mean loss), each over about the same number of steps."""
    ends = sorted({round(len(losses) * point / CURVE_POINTS) for point in range(1, CURVE_POINTS + 1)} - {0})
    return tuple(
        (end * tokens_per_step, math.fsum(losses[start:end]) / (end - start))
        for start, end in zip([0, *ends], ends, strict=False)
    )


@contextmanager
def own_torch_state(seed: int, device: str, threads: int) -> Iterator[None]:
    """Inside, torch has this seed and number of threads, and a GPU adds up in a fixed order.

    From now on the process keeps the memory that it frees, see `operators.base.freed_memory`.

    Raises BrokenDeviceError where an error leaves the GPU of no use to this process.
    """
    keep_freed_memory()
    on_cpu = device == "cpu"  # a CPU adds up in a fixed order anyway
    with (
        faults_told(device),  # outside of what sets the GPU's state back, which fails with it
        torch.random.fork_rng(devices=[] if on_cpu else [torch.device(device)]),
        nullcontext() if on_cpu else deterministic(),
        torch_threads(threads),
    ):
        torch.manual_seed(seed)
        yield
