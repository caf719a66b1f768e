"""Measures what weight normalization is worth: each family of models with it and without.

Both models of a family are trained with the same seeds, and the difference of their losses is the gain:

    frontrunner study normalization study_normalization_cpu
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from rich.console import Console

from operators import Architecture, registry
from operators.cost import parameters
from search.studies import experiment
from search.studies.experiment import ExperimentSettings, Session, Wanted, Width
from search.studies.parallel import train_ahead


class NormalizationSettings(ExperimentSettings):
    """What `study normalization` compares: each family with weight normalization and without.

    With it means `proxy.weight_normalization` and a normalized head.

    families: name -> layers, as in `a f a f`.
    width: of all models.
    genes: operator -> gene -> value, where it differs from the operator's own.
    normalized_learning_rate: replaces proxy.learning_rate in trainings with normalization, which take larger
        rates; null is the same rate for both.
    """

    kind: ClassVar[str] = "normalization"
    grows: ClassVar[frozenset[str]] = ExperimentSettings.grows | {"families"}

    families: Annotated[Mapping[str, str], Field(min_length=1)]
    width: Width
    genes: Mapping[str, Mapping[str, Any]] = {}
    normalized_learning_rate: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        if self.proxy.weight_normalization:
            raise ValueError(
                "proxy.weight_normalization: expected it unset, as each family is trained with it and without"
            )
        for name in self.genes:
            registry.get(name)
        for layers in self.families.values():
            self.architecture(layers, normalized=True, vocabulary=self.data.vocabulary)
        return self

    @property
    def rate_with_it(self) -> float:
        """The learning rate of trainings with normalization."""
        return self.normalized_learning_rate or self.proxy.learning_rate

    def architecture(self, layers: str, *, normalized: bool, vocabulary: int) -> Architecture:
        """Returns the model of these layers, with a normalized head or without. Raises ArchitectureError."""
        used = {registry.name_of(symbol) for symbol in layers.split()}
        genes = {name: values for name, values in self.genes.items() if name in used}
        return Architecture.from_shorthand(
            layers, width=self.width, vocabulary=vocabulary, genes=genes, normalized_head=normalized
        )


@dataclass(frozen=True)
class Effect:
    """What weight normalization does to one family.

    without, with_it: losses (nats per token), one a seed, of the same seeds; empty where any training failed.
    problem: why a training failed; empty where none did.
    """

    family: str
    layers: str
    params: int
    without: tuple[float, ...] = ()
    with_it: tuple[float, ...] = ()
    problem: str = ""

    @property
    def gain(self) -> float:
        """By how much normalization lowers the loss (nats per token), as the mean over the seeds."""
        return fmean(self._gains)

    @property
    def error(self) -> float:
        """Standard error of the gain; 0 for one seed."""
        return stdev(self._gains) / len(self._gains) ** 0.5 if len(self._gains) > 1 else 0.0

    @property
    def _gains(self) -> list[float]:
        return [without - with_it for without, with_it in zip(self.without, self.with_it, strict=True)]


def run(settings: NormalizationSettings, *, results: Path, name: str, console: Console) -> list[Effect]:
    """Trains what has no record yet; returns an effect for each family. Raises our errors."""
    with experiment.session(settings, results=results, name=name, console=console) as at:
        pairs = {
            family: [
                settings.architecture(layers, normalized=normalized, vocabulary=at.corpus.vocabulary)
                for normalized in (False, True)
            ]
            for family, layers in settings.families.items()
        }
        experiment.prepare_kernels(at, [plain for plain, _ in pairs.values()])
        wanted = {family: _wanted(settings, family, *both) for family, both in pairs.items()}
        train_ahead(at, (one for of_family in wanted.values() for of_seed in of_family for one in of_seed))
        return [
            _effect(at, family, settings.families[family], of_family) for family, of_family in wanted.items()
        ]


def _wanted(
    settings: NormalizationSettings, family: str, plain: Architecture, normalized: Architecture
) -> list[tuple[Wanted, Wanted]]:
    """Returns for each seed the training without normalization and the one with it."""
    with_it = settings.proxy.model_copy(
        update={"weight_normalization": True, "learning_rate": settings.rate_with_it}
    )
    return [
        (
            Wanted(f"{family} without", plain, settings.proxy, seed),
            Wanted(f"{family} with", normalized, with_it, seed),
        )
        for seed in settings.seeds
    ]


def _effect(at: Session, family: str, layers: str, wanted: list[tuple[Wanted, Wanted]]) -> Effect:
    trainings = [
        (experiment.trained(at, without), experiment.trained(at, with_it)) for without, with_it in wanted
    ]
    found = Effect(family, layers, parameters(wanted[0][0].architecture))
    problems = [training.reason for both in trainings for training in both if training.loss is None]
    if problems:
        return Effect(found.family, found.layers, found.params, problem=problems[0])
    losses = [
        tuple(training.loss for training in side if training.loss is not None)
        for side in zip(*trainings, strict=True)
    ]
    return Effect(found.family, found.layers, found.params, without=losses[0], with_it=losses[1])
