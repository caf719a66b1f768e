"""Compares models that see: variants of one model, trained on images with questions, and measured.

The variants are what the paper of Shakti-VLM leaves open: where normalization stands, query-key
normalization, patches by resolution, positions, one stage or three. All variants see the same examples and
the same text:

    frontrunner study vision study_vision_cpu
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ValidationError, model_validator
from rich.console import Console
from torch import Tensor

from operators import VisionLanguage
from operators.base.errors import ArchitectureError, one_line
from operators.vision.cost import vision_cost, vision_parameters
from profiler.device.lock import shared
from profiler.device.memory import give_back_memory, memory_errors
from profiler.profile import ProfileSettings
from proxy_train.images.batches import require_fit
from proxy_train.images.decoders import kept_decoder
from proxy_train.images.image_corpus import ImageCorpus
from proxy_train.images.image_settings import ImageSettings
from proxy_train.images.prepare import prepare_images
from proxy_train.images.stage_settings import StageSettings, VisionScore
from proxy_train.images.train import train_vision
from proxy_train.settings import ProxySettings
from proxy_train.text.corpus import TOKENIZER, Corpus
from proxy_train.train import check_corpus, train
from search.evaluation.settled import beside_others
from search.studies import experiment
from search.studies.experiment import ExperimentSettings, Session
from search.studies.experiment_store import Latency, Training
from search.studies.parallel import train_ahead

SECTIONS = ("tower", "projector", "language", "stages")
TIMES = ("ttft_ms", "tower_ms", "prefill_ms", "decode_ms", "peak_memory_bytes")


class VisionStudySettings(ExperimentSettings):
    """What `study vision` compares: `model` with each variant's changes.

    model: the model that is changed.
    variants: name -> section -> key -> value. Sections are `tower`, `projector` and `language` of the model,
        and `stages`. An empty variant is the model itself.
    images, stages: what the models are trained on after their decoders, and how.
    beside: files and names of models, such as `smolvlm-256m`, that are measured and not trained.

    profile.images is at least 1.
    """

    kind: ClassVar[str] = "vision"
    unit: ClassVar[str] = "examples"
    grows: ClassVar[frozenset[str]] = ExperimentSettings.grows | {"variants", "beside"}

    model: VisionLanguage
    variants: Annotated[Mapping[str, Mapping[str, Mapping[str, Any]]], Field(min_length=1)]
    images: ImageSettings = ImageSettings()
    stages: StageSettings = StageSettings()
    beside: tuple[str, ...] = ()
    profile: ProfileSettings = ProfileSettings(images=1)

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        if not self.profile.images:
            raise ValueError("profile.images: expected at least 1, as the models see, got 0")
        for name in self.variants:
            self.variant(name)
        self.published()
        return self

    def published(self) -> dict[str, VisionLanguage]:
        """The models of `beside`, by name. Raises ValueError, one line."""
        if twice := sorted(set(self.beside) & set(self.variants)):
            raise ValueError(f"beside: {twice[0]} is a variant too, expected another name")
        try:
            return {name: VisionLanguage.load(name) for name in self.beside}
        except ArchitectureError as error:
            raise ValueError(f"beside: {error}") from None

    def variant(self, name: str) -> tuple[VisionLanguage, StageSettings]:
        """The model and the stages of a variant. Raises ValueError, one line that begins with its place."""
        changes, where = self.variants[name], f"variants.{name}"
        if unknown := sorted(set(changes) - set(SECTIONS)):
            raise ValueError(f"{where}: unknown key {unknown[0]}: expected {', '.join(SECTIONS)}")
        data = self.model.model_dump(mode="json")
        for section in ("tower", "projector", "language"):
            data[section] |= dict(changes.get(section, {}))
        # A variant of another depth has the model's normalization in all blocks, unless it says otherwise.
        own = changes.get("tower", {})
        if "depth" in own and "norms" not in own and len(set(self.model.tower.norms)) == 1:
            data["tower"]["norms"] = self.model.tower.norms[0].model_dump()
        try:
            stages = StageSettings.model_validate({**self.stages.model_dump(), **changes.get("stages", {})})
            return VisionLanguage.parse(data), stages
        except ValidationError as error:
            raise ValueError(f"{where}.stages: {one_line(error)}") from None
        except ArchitectureError as error:
            raise ValueError(f"{where}: {error}") from None

    def fixed(self) -> dict[str, Any]:
        """What every result depends on; the digest of the images stands for where they lie."""
        found = super().fixed()
        found["images"].pop("source")
        return found | {"text_tokens": self.proxy.tokens}


@dataclass(frozen=True)
class Variant:
    """What came of one variant, or of a model beside the variants.

    scores: by metric and seed, as `answer_loss`; empty where a training failed, and for a model beside.
    times: by key, as `ttft_ms@b1`; `peak_memory_bytes@b1` is among them.
    warnings: signs of failed stages, of any seed.
    problem: why a training or the measurement failed; empty where none did.
    tainted: why the times are not to be trusted.
    """

    name: str
    params: int
    image_tokens: int
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problem: str = ""
    tainted: tuple[str, ...] = ()

    def mean(self, metric: str) -> float | None:
        """The mean of a score over the seeds; None where there is none."""
        return fmean(self.scores[metric]) if metric in self.scores else None

    def spread(self, metric: str) -> float | None:
        """The standard error of that mean; None for fewer than two seeds."""
        values = self.scores.get(metric, ())
        return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


@dataclass(frozen=True)
class _Asked:
    """A variant with all that its trainings need. The label changes with what is trained."""

    name: str
    value: VisionLanguage
    stages: StageSettings

    @property
    def label(self) -> str:
        changed = self.value.digest()[:8]
        return f"{self.name} {changed} {self.stages.stages}"

    @property
    def examples(self) -> int:
        return self.stages.align_examples + self.stages.tune_examples


@dataclass(frozen=True)
class _Wanted:
    """A training of a variant, as `experiment.Trainable` has it."""

    of: _Asked
    proxy: ProxySettings
    images: ImageCorpus
    seed: int

    @property
    def key(self) -> tuple[str, int, int]:
        return self.of.label, self.of.examples, self.seed

    @property
    def work(self) -> int:
        return vision_cost(self.of.value).first_token_flops * self.of.examples

    def result(self, corpus: Corpus, *, device: str) -> dict[str, Any]:
        score = train_once(self.of, corpus, self.images, self.proxy, seed=self.seed, device=device)
        scores = score.metrics()
        if score.text_loss_before is not None:
            scores["text_loss_before"] = score.text_loss_before
        return {"loss": score.answer_loss, "scores": scores, "warnings": score.warnings}

    def training(self, *, seconds: float, **found: Any) -> Training:
        label, tokens, seed = self.key
        costs = vision_cost(self.of.value)
        return Training(
            label=label,
            tokens=tokens,
            seed=seed,
            seconds=seconds,
            params=costs.params,
            flops=costs.first_token_flops,
            **found,
        )


def run(settings: VisionStudySettings, *, results: Path, name: str, console: Console) -> list[Variant]:
    """Trains and measures what has no record yet; returns the variants in their order. Raises our errors.

    A decoder that several variants share is trained once for each seed.
    """
    settings = settings.model_copy(update={"images": settings.images.absolute()})
    asked = [_Asked(variant, *settings.variant(variant)) for variant in settings.variants]
    prepared: list[ImageCorpus] = []

    def images_of(corpus: Corpus) -> dict[str, Any]:
        end = settings.data.end_of_document
        prepared.append(prepare_images(settings.images, corpus.folder / TOKENIZER, end_of_document=end))
        for one in asked:  # what does not fit ends the study before anything is trained
            require_fit(prepared[0], one.value)
            check_corpus(one.value.language, corpus, settings.proxy.sequence_length)
        return {"image_data": prepared[0].digest}

    session = experiment.session(settings, results=results, name=name, console=console, further=images_of)
    with session as at:
        wanted = [_Wanted(one, settings.proxy, prepared[0], seed) for one in asked for seed in settings.seeds]
        train_ahead(at, wanted)
        for one_training in wanted:
            experiment.trained(at, one_training)
        latencies = [experiment.measured(at, one.label, one.value, TIMES) for one in asked]
        variants = [
            _variant(at, one, settings.seeds, latency) for one, latency in zip(asked, latencies, strict=True)
        ]
        return variants + [_beside(at, name, value) for name, value in settings.published().items()]


def _beside(at: Session, name: str, value: VisionLanguage) -> Variant:
    """Measures a model that is not trained."""
    latency = experiment.measured(at, f"{name} {value.digest()[:8]}", value, TIMES)
    return Variant(
        name=name,
        params=vision_parameters(value),
        image_tokens=value.image_tokens,
        times=latency.decode_ms,
        problem=latency.problem,
        tainted=latency.tainted,
    )


def train_once(
    one: _Asked, corpus: Corpus, images: ImageCorpus, proxy: ProxySettings, *, seed: int, device: str
) -> VisionScore:
    """Trains a variant. A decoder that several variants share is trained once, by one of the processes.

    Raises what `train_vision` and `kept_decoder` raise, MemoryError and torch.OutOfMemoryError.
    """
    language = one.value.language

    def attempt(*, alone: bool) -> VisionScore:
        def first_stage() -> Mapping[str, Tensor]:
            with shared(device), memory_errors():
                return train(language, corpus, proxy, seed=seed, device=device, spares_memory=alone).weights

        decoder = None
        if one.stages.stages == "three":
            decoder = kept_decoder(language, corpus, proxy, first_stage, seed=seed, device=device)
        with shared(device), memory_errors():
            score = train_vision(
                one.value, corpus, images, proxy, one.stages, seed=seed, device=device, decoder=decoder
            ).score
            give_back_memory()
        return score

    return beside_others(device, attempt)


def _variant(at: Session, one: _Asked, seeds: Sequence[int], latency: Latency) -> Variant:
    trainings = [at.store.trainings[one.label, one.examples, seed] for seed in seeds]
    problems = [f"{each.status}: {each.reason}" for each in trainings if each.status != "ok"]
    problems += [latency.problem] if latency.problem else []
    metrics = dict.fromkeys(metric for each in trainings for metric in each.scores)
    whole = all(each.status == "ok" for each in trainings)
    return Variant(
        name=one.name,
        params=trainings[0].params,
        image_tokens=one.value.image_tokens,
        scores={name: tuple(each.scores[name] for each in trainings) for name in metrics} if whole else {},
        times=latency.decode_ms,
        warnings=tuple(dict.fromkeys(warning for each in trainings for warning in each.warnings)),
        problem=problems[0] if problems else "",
        tainted=latency.tainted,
    )
