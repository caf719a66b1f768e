"""Trains a model on its budget, or on several that share their stable part, and goes on from a checkpoint."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators.base.errors import DivergedError
from operators.model import HybridLM
from proxy_train import checkpoint
from proxy_train.loss import best_loss
from proxy_train.optim import language_optimizer
from proxy_train.schedule import Schedule
from proxy_train.settings import BudgetScore, ProxySettings
from proxy_train.step import Step, own_stream
from proxy_train.text.corpus import Corpus
from proxy_train.text.data import batches

DIVERGED = 1.5  # a training loss beyond this multiple of the first one does not come back
# The host looks at the losses of this many steps at once: each look waits for the
# GPU. On a CPU it looks at each.
GPU_STEPS_UNSEEN = 20
CHECKPOINT_SECONDS = 60.0  # between two checkpoints at least: a kill loses about a minute of training


@dataclass(frozen=True)
class Hooks:
    """Functions of the caller that a training calls between steps; see `proxy_train.train.train`."""

    on_step: Callable[[int, float], None] | None = None
    pause: Callable[[], float] | None = None
    rungs: tuple[int, ...] = ()
    on_rung: Callable[[int, float], None] | None = None


@dataclass(frozen=True)
class Start:
    """Where a training begins that goes on from another one.

    tensors: weights by name; with the optimizer's state where that is known, as `Optimizer.tensors` names it.
    digest: tells these tensors from others.
    batches: how many of its seed's batches the other training read; this one reads those after them.
    """

    tensors: Mapping[str, Tensor]
    digest: str
    batches: int = 0


@dataclass(frozen=True)
class Plan:
    """How a training is to fit into the device's memory.

    micro_batch_size: rows in one pass.
    recompute: whether the backward pass computes layers again instead of keeping their activations.
    """

    micro_batch_size: int
    recompute: bool = False

    def thriftier(self, batch_size: int) -> "Plan | None":
        """The next plan to try where memory ran out; None where nothing is left to try.

        It has at most half the rows. With one row already, it computes layers again.
        """
        if self.micro_batch_size > 1:
            half = self.micro_batch_size // 2
            return Plan(next(rows for rows in range(half, 0, -1) if batch_size % rows == 0))
        return None if self.recompute else Plan(1, recompute=True)


@dataclass(frozen=True)
class Fitted:
    """What a training did.

    losses: training loss of every step (nats per token).
    budgets: scores of the smaller budgets.
    seconds: wall time of the steps.
    startup_s: the part of `seconds` before steps ran at their final speed.
    tokens_per_s: speed after that.
    execution: see `step.Step`.
    weights: float32 masters by name, on the CPU.
    """

    losses: list[float]
    budgets: tuple[BudgetScore, ...]
    seconds: float
    startup_s: float
    tokens_per_s: float
    execution: str
    weights: dict[str, Tensor]


class Trainer:
    """One training from its start, or from its checkpoint, to its end: `fit`.

    model: trained in place.
    plan: how the training fits into memory.
    seed: of the batches.
    score: called as score(model) -> (loss in nats per token, bits per byte) at the end of every smaller
        budget and at every rung.
    hooks: functions of the caller.
    file: the checkpoint, or None for none.
    keep: whether the checkpoint stays at the end, with the final state.
    start: what the training goes on from; None for random weights.
    identity: what training the checkpoint has to belong to (JSON values by name).
    """

    def __init__(
        self,
        model: HybridLM,
        corpus: Corpus,
        settings: ProxySettings,
        plan: Plan,
        *,
        seed: int,
        score: Callable[[HybridLM], tuple[float, float]],
        hooks: Hooks,
        file: Path | None,
        identity: Mapping[str, Any],
        keep: bool = False,
        start: Start | None = None,
    ) -> None:
        self.model, self.corpus, self.settings, self.seed, self.score, self.hooks = (
            model,
            corpus,
            settings,
            seed,
            score,
            hooks,
        )
        self.file, self.identity, self.keep = file, identity, keep
        self.batches_before = start.batches if start is not None else 0
        model.recompute = plan.recompute
        self.device = model.embedding.weight.device
        self.optimizer = language_optimizer(
            model,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            gradient_clip=settings.gradient_clip,
            base_width=settings.base_width,
            normalized=settings.weight_normalization,
        )
        if start is not None:
            self.optimizer.take(start.tensors)
        tokens = torch.empty(settings.batch_size, settings.sequence_length, dtype=torch.int64, device="meta")
        loss_of = partial(best_loss(self.device, model.embedding.weight.dtype), model)
        self.step = Step(loss_of, [tokens, tokens], self.optimizer, rows=plan.micro_batch_size)
        self.losses: list[float] = []
        self.budgets: list[BudgetScore] = []
        self.rungs: dict[int, float] = {}  # validation loss by tokens
        self.seconds = self.startup_s = 0.0
        self.settled_steps = 0  # steps that ran in `seconds - startup_s`

    def fit(self) -> Fitted:
        """Trains to the end and returns what came of it.

        Raises DivergedError where the loss runs away.
        Raises DataError for a checkpoint that is damaged, of another training or cannot be written.
        """
        self._resume()
        with own_stream(self.device):
            *smaller, whole = self.settings.schedules()
            for step, budget in self._stops(smaller):
                self._train(whole, until=step)
                if budget is not None:
                    self.budgets.append(self._branch(budget))
                    step, loss = budget.steps, self.budgets[-1].loss
                else:
                    loss = self._validated()[0]
                for tokens in self.hooks.rungs:
                    if tokens // self.settings.batch_tokens == step:
                        self._reach(tokens, loss)
            self._train(whole, until=whole.steps)
        if self.file is not None and self.keep:
            self._checkpoint(self.file)
        elif self.file is not None:
            self.file.unlink(missing_ok=True)
        settled, seconds = self.settled_steps, self.seconds - self.startup_s
        if settled == 0:  # a run shorter than the startup: its speed is that of all steps
            settled, seconds = len(self.losses), self.seconds
        return Fitted(
            losses=self.losses,
            budgets=tuple(self.budgets),
            seconds=self.seconds,
            startup_s=self.startup_s,
            tokens_per_s=settled * self.settings.batch_tokens / seconds,
            execution=self.step.execution,
            weights={name: master.cpu().clone() for name, master in self.optimizer.weights().items()},
        )

    def _stops(self, smaller: Sequence[Schedule]) -> list[tuple[int, Schedule | None]]:
        """Where the training still has to stop, in order: (step, smaller budget that branches off there).

        The budget is None at a rung. A rung at the end of a smaller budget takes that budget's loss, whose
        rate has decayed, and needs no stop of its own.
        """
        ends = {schedule.steps for schedule in smaller}
        steps = {
            tokens // self.settings.batch_tokens for tokens in self.hooks.rungs if tokens not in self.rungs
        } - ends
        stops = [(schedule.parting, schedule) for schedule in smaller[len(self.budgets) :]]
        return sorted([*stops, *((step, None) for step in steps)], key=lambda stop: stop[0])

    def _validated(self) -> tuple[float, float]:
        """The score of the model as it is now. Raises DivergedError."""
        loss, bits_per_byte = self.score(self.model)
        if not math.isfinite(loss):
            raise DivergedError(
                f"loss {loss:.4g} on the validation text after {len(self.losses)} steps: "
                "expected a finite number"
            )
        return loss, bits_per_byte

    def _reach(self, tokens: int, loss: float) -> None:
        self.rungs[tokens] = loss
        if self.hooks.on_rung is not None:
            self.hooks.on_rung(tokens, loss)

    def _branch(self, schedule: Schedule) -> BudgetScore:
        """Trains to the end of a smaller budget and scores it; then undoes all of it but the time."""
        saved = {name: tensor.clone() for name, tensor in self.optimizer.tensors().items()}
        losses = list(self.losses)
        self._train(schedule, until=schedule.steps, keep=False)
        loss, bits_per_byte = self._validated()
        self.losses = losses
        self.optimizer.restore(saved)
        return BudgetScore(
            tokens=schedule.steps * self.settings.batch_tokens, loss=loss, bits_per_byte=bits_per_byte
        )

    def _train(self, schedule: Schedule, *, until: int, keep: bool = True) -> None:
        """Trains from where the losses end up to the step `until`.

        keep: whether these steps belong to the whole budget, so that checkpoints and on_step see them.
        """
        first, settings = len(self.losses), self.settings
        every = 1 if self.device.type == "cpu" else GPU_STEPS_UNSEEN
        stream = batches(
            self.corpus,
            batch_size=settings.batch_size,
            sequence_length=settings.sequence_length,
            steps=self.batches_before + until,
            seed=self.seed,
        )
        unseen: list[Tensor] = []
        began = checkpointed = time.perf_counter()
        before = self.seconds
        for number, (inputs, targets) in enumerate(islice(stream, self.batches_before + first, None), first):
            settled = self.step.settled
            unseen.append(self.step((inputs, targets), schedule.share(number)))
            self.settled_steps += settled
            if len(unseen) == every or number + 1 == until or settled != self.step.settled:
                self._look(unseen, keep)
                unseen = []
                if self.hooks.pause is not None:
                    began += self.hooks.pause()
                now = time.perf_counter()
                self.seconds = before + now - began
                if not settled:
                    self.startup_s = self.seconds
                if keep and self.file is not None and now - checkpointed >= CHECKPOINT_SECONDS:
                    self._checkpoint(self.file)
                    checkpointed = time.perf_counter()
                    began += checkpointed - now
        self.seconds = before + time.perf_counter() - began

    def _look(self, unseen: list[Tensor], keep: bool) -> None:
        """Waits for the losses of the last steps. Raises DivergedError."""
        for loss in torch.stack(unseen).tolist():
            self.losses.append(loss)
            step, first = len(self.losses), self.losses[0]
            if not loss <= DIVERGED * first:
                raise DivergedError(
                    f"loss {loss:.4g} at step {step}: expected at most {DIVERGED} times the first step's, "
                    f"{first:.4g}"
                )
            if keep and self.hooks.on_step is not None:
                self.hooks.on_step(step, loss)

    def _checkpoint(self, file: Path) -> None:
        progress = {
            "losses": self.losses,
            "budgets": [budget.model_dump() for budget in self.budgets],
            "rungs": list(self.rungs.items()),
            "seconds": self.seconds,
            "startup_s": self.startup_s,
            "settled_steps": self.settled_steps,
        }
        checkpoint.write(file, self.optimizer.tensors(), identity=self.identity, progress=progress)

    def _resume(self) -> None:
        """Goes on from the checkpoint, if there is one.

        The random state is not restored: a step draws no number, and batches depend on seed and step alone.
        """
        saved = None if self.file is None else checkpoint.read(self.file, identity=self.identity)
        if saved is None:
            return
        tensors, progress = saved
        self.optimizer.restore(tensors)
        self.losses = list(progress["losses"])
        self.budgets = [BudgetScore.model_validate(budget) for budget in progress["budgets"]]
        for tokens, loss in progress.get("rungs", ()):
            self._reach(tokens, loss)
        self.seconds, self.startup_s, self.settled_steps = (
            progress["seconds"],
            progress["startup_s"],
            progress["settled_steps"],
        )
