"""Trains a model that sees, in three stages or in one, and scores its answers and its text."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from operators.base.errors import DivergedError
from operators.vision.model import VisionLanguageModel
from operators.vision.vision_language import VisionLanguage
from proxy_train.images.answers import AnswerScore, answer_loss, score_answers
from proxy_train.images.batches import require_fit, train_batches
from proxy_train.images.image_corpus import ImageCorpus
from proxy_train.images.stage_settings import StageCurve, StageSettings, VisionScore
from proxy_train.loss import best_loss
from proxy_train.optim import Optimizer, parameter_groups
from proxy_train.schedule import Schedule
from proxy_train.settings import ProxySettings
from proxy_train.step import Step, own_stream
from proxy_train.text.corpus import Corpus
from proxy_train.text.data import batches as text_batches
from proxy_train.train import check_corpus, evaluate, own_torch_state, train
from proxy_train.trainer import GPU_STEPS_UNSEEN

POINTS = 20  # of a stage's curve: enough to draw it
# The failure signs that the paper names: a second stage that lowers the loss of answers by less than this
# share of it, and a third one that raises the loss of text by more than this share.
LEAST_ALIGNED = 0.01
MOST_FORGOTTEN = 0.02

Stage = Literal["align", "tune", "one"]
Part = Literal["tower", "projector", "language"]
Kind = Literal["images", "text"]  # what a step reads


@dataclass(frozen=True)
class VisionTrained:
    """What a training leaves: the score, and the weights by name (float32, on the CPU)."""

    score: VisionScore
    weights: dict[str, Tensor]


def train_vision(
    value: VisionLanguage,
    text: Corpus,
    images: ImageCorpus,
    proxy: ProxySettings,
    stages: StageSettings,
    *,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    decoder: Mapping[str, Tensor] | None = None,
    on_step: Callable[[str, int, float], None] | None = None,
    pause: Callable[[], float] | None = None,
    rungs: Sequence[int] = (),
    on_rung: Callable[[int, float], None] | None = None,
) -> VisionTrained:
    """Trains a model from random weights and scores it.

    On a GPU the model is in bfloat16 with float32 masters, on a CPU in float32. On the CPU with one thread
    the score is the same to the last bit.

    text, proxy: of the first stage, which is `proxy_train.train.train`.
    images, stages: of the stages after it.
    seed: fixes weights and batches.
    device: where to train, as torch writes it.
    threads: CPU threads that torch may use.
    decoder: weights of the language model behind the first stage, by name; None trains it here. Models that
        share a decoder may share them. In one stage they are not used.
    on_step: called as on_step(stage, step from 1, training loss), on a GPU up to 20 steps later.
    pause: called between steps, on a GPU every 20; it returns the seconds that are not to count as training
        time.
    rungs: ascending numbers of examples, of all stages together, at which on_rung is called.
    on_rung: called as on_rung(examples, loss of held-out answers). What it raises ends the training.

    Raises DataError where images, text and model do not fit together.
    Raises DivergedError where a loss is not finite.
    """
    require_fit(images, value)
    check_corpus(value.language, text, proxy.sequence_length)
    if stages.stages == "three" and decoder is None:
        decoder = train(value.language, text, proxy, seed=seed, device=device, threads=threads).weights
    on_cpu = torch.device(device).type == "cpu"
    dtype = torch.float32 if on_cpu else torch.bfloat16
    # On a GPU, PyTorch's other kernels of attention add up gradients in any order.
    ordered = nullcontext() if on_cpu else sdpa_kernel(SDPBackend.MATH)
    with own_torch_state(seed, device, threads), ordered:
        model = VisionLanguageModel(value, device=device, dtype=dtype)
        hooks = on_step or (lambda *_: None), pause or (lambda: 0.0), on_rung or (lambda *_: None)
        run = _Run(model, text, images, proxy, stages, seed, *hooks, list(rungs))
        return run.three(decoder or {}) if stages.stages == "three" else run.one()


@dataclass
class _Run:
    """One training.

    rungs: numbers of examples that are still to come.
    weights: of the model by name, in float32, as the last stage left them.
    examples, text_steps, seconds, curves: what it has read so far, and how that went.
    """

    model: VisionLanguageModel
    text: Corpus
    images: ImageCorpus
    proxy: ProxySettings
    stages: StageSettings
    seed: int
    on_step: Callable[[str, int, float], None]
    pause: Callable[[], float]
    on_rung: Callable[[int, float], None]
    rungs: list[int]
    weights: dict[str, Tensor] = field(default_factory=dict)
    examples: int = 0
    text_steps: int = 0
    seconds: float = 0.0
    curves: list[StageCurve] = field(default_factory=list)

    def three(self, decoder: Mapping[str, Tensor]) -> VisionTrained:
        """The second and the third stage, with a decoder that has had the first."""
        self.model.language.load_state_dict(dict(decoder))
        self.weights = {f"language.{name}": weight for name, weight in decoder.items()}
        self.text_steps = self.proxy.steps
        before, text_before = self._answers().loss, self._text_loss()
        align = self._steps(self.stages.align_examples)
        self._stage("align", ("tower", "projector"), self._mixed(align, 0, seed=self.seed))
        aligned = self._answers().loss
        tune = self._steps(self.stages.tune_examples)
        mixed = self._mixed(tune, self._text_in_tune(tune), seed=self.seed + 1)
        self._stage("tune", ("tower", "projector", "language"), mixed)
        warnings = []
        if aligned > before * (1 - LEAST_ALIGNED):
            warnings.append(
                f"stage 2 is flat: the loss of answers went from {before:.3f} to {aligned:.3f}, so "
                "the projector has learned little"
            )
        trained = self._finished(text_loss_before=text_before, aligned_loss=aligned)
        after = trained.score.text_loss
        if after > text_before * (1 + MOST_FORGOTTEN):
            warnings.append(
                f"text is worse after stage 3: its loss went from {text_before:.3f} to {after:.3f}; a larger "
                "text_share keeps more"
            )
        return VisionTrained(trained.score.model_copy(update={"warnings": tuple(warnings)}), trained.weights)

    def one(self) -> VisionTrained:
        """Everything at once: the examples and the text of all three stages, mixed."""
        tune = self._steps(self.stages.tune_examples)
        steps = self._steps(self.stages.align_examples) + tune
        mixed = self._mixed(steps, self.proxy.steps + self._text_in_tune(tune), seed=self.seed)
        self._stage("one", ("tower", "projector", "language"), mixed)
        return self._finished()

    def _steps(self, examples: int) -> int:
        return max(1, examples // self.stages.batch_size)

    def _text_in_tune(self, steps: int) -> int:
        """Steps of text beside so many steps of images."""
        return round(steps * self.stages.text_share / (1 - self.stages.text_share))

    def _mixed(self, steps: int, of_text: int, *, seed: int) -> "_Mixture":
        return _Mixture(self, steps, of_text, seed)

    def _stage(self, name: Stage, parts: tuple[Part, ...], mixture: "_Mixture") -> None:
        """Trains some parts of the model; the others are frozen. Raises DivergedError."""
        for part in ("tower", "projector", "language"):
            self.model.get_submodule(part).requires_grad_(part in parts)
        groups = _groups(self.model, self.stages, parts)
        optimizer = Optimizer(self.model, groups, gradient_clip=self.stages.gradient_clip)
        optimizer.take(self.weights)
        with own_stream(self.device):
            losses = self._steps_of(name, optimizer, mixture)
        self.weights |= {name: master.clone() for name, master in optimizer.weights().items()}
        self.curves.append(StageCurve(name=name, points=_points(losses, self.stages.batch_size)))

    def _steps_of(self, name: Stage, optimizer: Optimizer, mixture: "_Mixture") -> list[float]:
        """The steps of a stage; returns the losses of those that read images."""
        schedule = Schedule("cosine", len(mixture), round(len(mixture) * self.stages.warmup_fraction))
        every = 1 if self.device.type == "cpu" else GPU_STEPS_UNSEEN
        loss_of: dict[Kind, Callable[..., Tensor]] = {
            "images": partial(answer_loss, self.model),
            "text": self._loss_of_text(),
        }
        steps: dict[tuple[torch.Size, ...], Step] = {}  # by the shapes of a batch
        unseen: list[tuple[Kind, Tensor]] = []
        losses: list[float] = []
        began = time.perf_counter()
        for number, (kind, batch) in enumerate(mixture):
            shapes = tuple(each.shape for each in batch)
            if shapes not in steps:
                steps[shapes] = Step(loss_of[kind], batch, optimizer, rows=len(batch[0]))
            unseen.append((kind, steps[shapes](batch, schedule.share(number))))
            if kind == "images":
                self.examples += len(batch[0])
            else:
                self.text_steps += 1
            at_rung = bool(self.rungs) and self.examples >= self.rungs[0]
            if len(unseen) == every or number + 1 == len(mixture) or at_rung:
                losses += self._look(name, unseen, number + 1)
                unseen = []
                began += self.pause() + self._at_rung()
        self.seconds += time.perf_counter() - began
        return losses

    def _look(self, name: Stage, unseen: Sequence[tuple[Kind, Tensor]], step: int) -> list[float]:
        """Waits for the losses of the last steps, of which `step` is the last.

        Returns those of images. Raises DivergedError.
        """
        values = torch.stack([loss for _, loss in unseen]).tolist()
        for at, loss in enumerate(values, start=step + 1 - len(values)):
            if not math.isfinite(loss):
                raise DivergedError(f"stage {name}: loss {loss} at step {at}: expected a finite number")
            self.on_step(name, at, loss)
        return [loss for (kind, _), loss in zip(unseen, values, strict=True) if kind == "images"]

    def _at_rung(self) -> float:
        """Scores the answers where a rung is reached, and returns the seconds that this took."""
        began = time.perf_counter()
        while self.rungs and self.examples >= self.rungs[0]:
            loss = self._answers().loss
            if not math.isfinite(loss):
                raise DivergedError(f"loss {loss} of held-out answers: expected a finite number")
            self.on_rung(self.rungs.pop(0), loss)
        return time.perf_counter() - began

    def _loss_of_text(self) -> Callable[..., Tensor]:
        weight = self.model.language.embedding.weight
        return partial(best_loss(weight.device, weight.dtype), self.model.language)

    @property
    def device(self) -> torch.device:
        return self.model.language.embedding.weight.device

    def _answers(self) -> AnswerScore:
        examples, size = self.stages.validation_examples, 2 * self.stages.batch_size
        return score_answers(self.model, self.images, batch_size=size, examples=examples)

    def _text_loss(self) -> float:
        loss, _ = evaluate(
            self.model.language,
            self.text,
            sequence_length=self.proxy.sequence_length,
            tokens=self.proxy.validation_tokens,
            rows=self.proxy.batch_size,
        )
        return loss

    def _finished(self, **before: float) -> VisionTrained:
        answers = self._answers()
        if not math.isfinite(answers.loss):
            raise DivergedError(f"loss {answers.loss} of held-out answers: expected a finite number")
        score = VisionScore(
            answer_loss=answers.loss,
            answer_accuracy=answers.accuracy,
            most_frequent_accuracy=self.images.manifest.most_frequent_accuracy,
            text_loss=self._text_loss(),
            examples=self.examples,
            text_tokens=self.text_steps * self.proxy.batch_tokens,
            seconds=self.seconds,
            curves=tuple(self.curves),
            seed=self.seed,
            **before,
        )
        return VisionTrained(score, {name: weight.cpu() for name, weight in self.weights.items()})


class _Mixture:
    """Batches of examples and of text in an order that the seed fixes."""

    def __init__(self, run: _Run, steps: int, of_text: int, seed: int) -> None:
        self._run, self._steps, self._of_text, self._seed = run, steps, of_text, seed

    def __len__(self) -> int:
        return self._steps + self._of_text

    def __iter__(self) -> Iterator[tuple[Kind, tuple[Tensor, ...]]]:
        """Images, tokens, places and targets, or tokens and targets."""
        run, proxy = self._run, self._run.proxy
        examples = train_batches(
            run.images,
            run.model.value,
            batch_size=run.stages.batch_size,
            steps=self._steps,
            seed=self._seed,
            device=run.device,
        )
        texts = text_batches(
            run.text,
            batch_size=proxy.batch_size,
            sequence_length=proxy.sequence_length,
            steps=self._of_text,
            seed=self._seed,
        )
        order = np.random.default_rng(self._seed).permutation(len(self)) < self._of_text
        for is_text in order.tolist():
            if is_text:
                yield "text", next(texts)
            else:
                batch = next(examples)
                yield "images", (batch.images, batch.tokens, batch.places, batch.targets)


def _groups(
    model: VisionLanguageModel, stages: StageSettings, parts: tuple[Part, ...]
) -> list[dict[str, Any]]:
    """The parameters of these parts, with their rates as `peak`; matrices alone decay.

    The language model has the groups of a language model's training.
    """
    groups: list[dict[str, Any]] = []
    for part, rate in (("tower", stages.tower_rate), ("projector", stages.projector_rate)):
        if part in parts:
            weights = list(model.get_submodule(part).parameters())
            matrices = [weight for weight in weights if weight.ndim == 2]
            others = [weight for weight in weights if weight.ndim != 2]
            groups.append({"params": matrices, "peak": rate, "weight_decay": stages.weight_decay})
            groups.append({"params": others, "peak": rate, "weight_decay": 0.0})
    if "language" in parts:
        groups += parameter_groups(
            model.language, learning_rate=stages.language_rate, weight_decay=stages.weight_decay
        )
    return groups


def _points(losses: list[float], batch_size: int) -> tuple[tuple[int, float], ...]:
    """At most POINTS points (examples, mean loss), each over about the same number of steps."""
    ends = sorted({round(len(losses) * point / POINTS) for point in range(1, POINTS + 1)} - {0})
    starts = [0, *ends]
    return tuple(
        (end * batch_size, math.fsum(losses[start:end]) / (end - start))
        for start, end in zip(starts, ends, strict=False)
    )
