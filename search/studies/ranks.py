"""Measures whether a short training orders architectures as a long one does.

A search relies on that. The study also measures whether the short loss orders them better than counting their
parameters or FLOPs would:

    frontrunner study ranks study_ranks_cpu
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError
from search.config.space import SpaceSettings
from search.spaces.staged import make_space
from search.studies import experiment
from search.studies.experiment import ExperimentSettings, Tokens, Wanted
from search.studies.experiment_store import Training
from search.studies.parallel import train_ahead
from search.studies.statistics import Correlation, correlations

# Draws for each wanted architecture, before the space counts as too small.
_DRAWS = 100


class RankSettings(ExperimentSettings):
    """What `study ranks` compares: random members of a space, trained to proxy.tokens and to `long_tokens`.

    space: as in a run.
    architectures: how many are drawn.
    draw: seed of the draw. A larger number of architectures begins with the same ones.
    long_tokens: tokens of the long training.
    """

    kind: ClassVar[str] = "ranks"
    grows: ClassVar[frozenset[str]] = ExperimentSettings.grows | {
        "space",
        "architectures",
        "draw",
        "long_tokens",
    }

    space: SpaceSettings = SpaceSettings()
    architectures: Annotated[int, Field(ge=4, le=10_000)] = 16
    draw: Annotated[int, Field(ge=0)] = 0
    long_tokens: Tokens

    @model_validator(mode="after")
    def _long_is_longer(self) -> Self:
        if self.long_tokens <= self.proxy.tokens:
            raise ValueError(
                f"long_tokens: expected more than proxy.tokens, {self.proxy.tokens}, got {self.long_tokens}"
            )
        return self


@dataclass(frozen=True)
class Compared:
    """One architecture at both budgets; losses and times are means over the seeds.

    label: names the architecture.
    flops: forward, of one sequence of the training.
    short_loss, long_loss: nats per token.
    seconds_short, seconds_long: wall time of one training.
    """

    label: str
    shorthand: str
    width: int
    params: int
    flops: int
    short_loss: float
    long_loss: float
    seconds_short: float
    seconds_long: float


@dataclass(frozen=True)
class RankStudy:
    """The result of the study.

    compared: the architectures that have both losses.
    correlations: predictor of the long loss -> name of the correlation -> correlation.
    failed: label -> why the architecture lacks one of the losses.
    """

    settings: RankSettings
    compared: tuple[Compared, ...]
    correlations: dict[str, dict[str, Correlation]]
    failed: dict[str, str]


def run(settings: RankSettings, *, results: Path, name: str, console: Console) -> RankStudy:
    """Trains what has no record yet and compares.

    Raises our errors, and ConfigError where fewer than 4 architectures have both losses.
    """
    compared, failed = [], {}
    with experiment.session(settings, results=results, name=name, console=console) as at:
        architectures = drawn(settings, vocabulary=at.corpus.vocabulary)
        experiment.prepare_kernels(at, architectures)
        wanted = [
            [_wanted(settings, one, tokens) for tokens in (settings.proxy.tokens, settings.long_tokens)]
            for one in architectures
        ]
        train_ahead(at, chain.from_iterable(chain.from_iterable(wanted)))
        for architecture, both in zip(architectures, wanted, strict=True):
            short, long = ([experiment.trained(at, one) for one in budget] for budget in both)
            reasons = [training.reason for training in (*short, *long) if training.loss is None]
            if reasons:
                failed[short[0].label] = reasons[0]
            else:
                compared.append(_compared(architecture, short, long))
    return RankStudy(settings, tuple(compared), predictors(compared), failed)


def drawn(settings: RankSettings, *, vocabulary: int) -> list[Architecture]:
    """Draws distinct members of the space, in the order of the draw.

    Raises ConfigError for a space that has fewer than the settings ask for.
    """
    space, rng = make_space(settings.space, vocabulary), np.random.default_rng(settings.draw)
    found: dict[str, Architecture] = {}
    for _ in range(_DRAWS * settings.architectures):
        member = space.sample(rng)
        found.setdefault(space.key(member), member)
        if len(found) == settings.architectures:
            return list(found.values())
    raise ConfigError(
        f"space: {len(found)} different architectures in {_DRAWS * settings.architectures} "
        f"draws: expected {settings.architectures}"
    )


def predictors(compared: list[Compared]) -> dict[str, dict[str, Correlation]]:
    """Returns how well the short loss, the parameters and the FLOPs order the long loss.

    Parameters and FLOPs enter as negatives, since more of them are expected to lower the loss.
    """
    long = [one.long_loss for one in compared]
    figures = {
        "short loss": [one.short_loss for one in compared],
        "parameters": [-float(one.params) for one in compared],
        "FLOPs": [-float(one.flops) for one in compared],
    }
    return {name: correlations(values, long) for name, values in figures.items()}


def _wanted(settings: RankSettings, architecture: Architecture, tokens: int) -> list[Wanted]:
    label = f"{architecture.depth} layers width {architecture.width} {architecture.digest()[:8]}"
    return [Wanted(label, architecture, settings.trained_with(tokens), seed) for seed in settings.seeds]


def _compared(architecture: Architecture, short: list[Training], long: list[Training]) -> Compared:
    short_loss, long_loss = (
        fmean(one.loss for one in trainings if one.loss is not None) for trainings in (short, long)
    )
    return Compared(
        label=short[0].label,
        shorthand=architecture.shorthand,
        width=architecture.width,
        params=short[0].params,
        flops=short[0].flops,
        short_loss=short_loss,
        long_loss=long_loss,
        seconds_short=fmean(training.seconds for training in short),
        seconds_long=fmean(training.seconds for training in long),
    )
