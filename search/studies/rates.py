"""Measures whether one learning rate is best at every width, with learning-rate transfer and without.

With transfer the rate is carried over from `proxy.base_width` to the other widths. A search trains candidates
of different widths with one setting of the rate, so that setting has to suit all of them:

    frontrunner study rates study_rates_cpu
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from rich.console import Console

from operators import Architecture
from search.studies import experiment
from search.studies.experiment import ExperimentSettings, Session, Wanted, Width
from search.studies.parallel import train_ahead

Rate = Annotated[float, Field(gt=0)]


class RateSettings(ExperimentSettings):
    """What `study rates` compares: `layers` at every width, trained with every learning rate.

    layers: as in `a f a f`.
    widths: of the models. proxy.base_width, from which the rates are carried over, is one of them.
    rates: learning rates, each in place of proxy.learning_rate.
    genes: operator -> gene -> value, where it differs from the operator's own.

    With proxy.weight_normalization the head is normalized too.
    """

    kind: ClassVar[str] = "rates"
    grows: ClassVar[frozenset[str]] = ExperimentSettings.grows | {"widths", "rates"}

    layers: str
    widths: Annotated[tuple[Width, ...], Field(min_length=2)]
    rates: Annotated[tuple[Rate, ...], Field(min_length=2)]
    genes: Mapping[str, Mapping[str, Any]] = {}

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        if self.proxy.base_width not in self.widths:
            raise ValueError(
                f"proxy.base_width: expected one of the widths {self.widths}, got {self.proxy.base_width}"
            )
        for width in self.widths:
            self.architecture(width, vocabulary=self.data.vocabulary)
        return self

    def architecture(self, width: int, *, vocabulary: int) -> Architecture:
        """Returns the model of that width. Raises ArchitectureError."""
        normalized = self.proxy.weight_normalization
        return Architecture.from_shorthand(
            self.layers, width=width, vocabulary=vocabulary, genes=self.genes, normalized_head=normalized
        )


@dataclass(frozen=True)
class Sweep:
    """One width with all learning rates.

    width: of the model.
    carried: whether the rates were carried over from the base width, or used as they are.
    losses: by rate, means over the seeds (nats per token) of the trainings that did not fail.
    chosen: the rate that is best at the base width.
    """

    width: int
    carried: bool
    losses: Mapping[float, float]
    chosen: float

    @property
    def best(self) -> float:
        return min(self.losses, key=lambda rate: self.losses[rate])

    @property
    def lost(self) -> float:
        """How much loss the base width's best rate costs at this width, beside the best rate here.

        In nats per token; inf where trainings with that rate failed.
        """
        return self.losses.get(self.chosen, float("inf")) - self.losses[self.best]


def run(settings: RateSettings, *, results: Path, name: str, console: Console) -> list[Sweep]:
    """Trains what has no record yet.

    Returns a sweep for each width, first with the rates carried over, then with them as they are.

    Raises our errors.
    """
    with experiment.session(settings, results=results, name=name, console=console) as at:
        architectures = {
            width: settings.architecture(width, vocabulary=at.corpus.vocabulary)
            for width in sorted(settings.widths)
        }
        experiment.prepare_kernels(at, architectures.values())
        wanted = {
            (carried, width): _wanted(settings, one, carried)
            for carried in (True, False)
            for width, one in architectures.items()
        }
        train_ahead(at, (one for sweep in wanted.values() for of_rate in sweep.values() for one in of_rate))
        found = {both: _losses(at, sweep) for both, sweep in wanted.items()}
    at_base = found[True, settings.proxy.base_width or 0]
    chosen = min(at_base, key=lambda rate: at_base[rate], default=settings.rates[0])
    return [Sweep(width, carried, losses, chosen) for (carried, width), losses in found.items() if losses]


def _wanted(settings: RateSettings, architecture: Architecture, carried: bool) -> dict[float, list[Wanted]]:
    """Returns by rate the trainings with each seed."""
    found, width = {}, architecture.width
    carried = carried or width == settings.proxy.base_width  # at the base width both are the same training
    for rate in settings.rates:
        proxy = settings.proxy.model_copy(
            update={"learning_rate": rate} | ({} if carried else {"base_width": None})
        )
        label = f"width {width} rate {rate:g} {'carried over' if carried else 'as it is'}"
        found[rate] = [Wanted(label, architecture, proxy, seed) for seed in settings.seeds]
    return found


def _losses(at: Session, sweep: Mapping[float, Sequence[Wanted]]) -> dict[float, float]:
    found = {}
    for rate, wanted in sweep.items():
        losses = [
            training.loss
            for training in (experiment.trained(at, one) for one in wanted)
            if training.loss is not None
        ]
        if len(losses) == len(wanted):
            found[rate] = fmean(losses)
    return found
