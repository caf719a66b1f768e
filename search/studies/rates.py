"""Does the best learning rate stay the same over widths? With it carried over by `proxy.base_width`, and
without.
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
    """What `study rates` compares: `layers` at every width, trained with every learning rate in place of
    proxy.learning_rate.

    proxy.base_width, one of the widths, is where carrying over begins. genes: operator -> gene -> value,
    where not the operators' own.
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
        """Raises ArchitectureError."""
        normalized = self.proxy.weight_normalization
        return Architecture.from_shorthand(
            self.layers, width=width, vocabulary=vocabulary, genes=self.genes, normalized_head=normalized
        )


@dataclass(frozen=True)
class Sweep:
    """One width. losses: by rate, means over seeds, of trainings that did not fail. chosen: the rate that is
    best at the base width.

    carried: whether the rate was carried over from the base width, or used as it is.
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
        """By how much the loss with the base width's best rate is above that with this width's own, nats per
        token; inf if it failed.
        """
        return self.losses.get(self.chosen, float("inf")) - self.losses[self.best]


def run(settings: RateSettings, *, results: Path, name: str, console: Console) -> list[Sweep]:
    """Trains what is not there yet -> a sweep for each width, first carried over, then as it is.

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
    """By rate, with each seed."""
    found, width = {}, architecture.width
    carried = carried or width == settings.proxy.base_width  # where both are the same training
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
