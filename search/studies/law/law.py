"""Trains and measures a grid of depths and widths of one block, and fits the depth-width law to it.

The law predicts the loss at depths and widths that were not trained, so that `law pick` can choose a shape
for a latency budget:

    frontrunner law run law_cpu
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from rich.console import Console

from operators import Architecture, registry
from operators.base.errors import ConfigError
from search.studies import experiment, experiment_store
from search.studies.experiment import ExperimentSettings, Tokens, Wanted, Width
from search.studies.experiment_store import Store
from search.studies.law.fit import Floats, Points
from search.studies.parallel import train_ahead

Quantity = Literal["loss", "perplexity"]


class LawSettings(ExperimentSettings):
    """What `law run` trains: `block` repeated at every depth and width, to every budget, with every seed.

    block: layers as in `a f`.
    genes: operator -> gene -> value, where it differs from the operator's own.
    depths: how often the block is repeated.
    widths: of the models.
    tokens: budgets of the trainings; proxy.tokens alone where there are none.
    """

    kind: ClassVar[str] = "law"
    grows: ClassVar[frozenset[str]] = ExperimentSettings.grows | {"depths", "widths", "tokens"}

    block: str = "a f"
    genes: Mapping[str, Mapping[str, Any]] = {}
    depths: Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1)]
    widths: Annotated[tuple[Width, ...], Field(min_length=1)]
    tokens: tuple[Tokens, ...] = ()

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        used = {registry.name_of(symbol) for symbol in self.block.split()}
        if unknown := sorted(set(self.genes) - used):
            raise ValueError(
                f"genes: expected operators of the block {self.block!r}, got {', '.join(unknown)}"
            )
        for width in self.widths:
            self.architecture(max(self.depths), width, vocabulary=self.data.vocabulary)
        try:
            for tokens in self.budgets:
                self.trained_with(tokens)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def budgets(self) -> tuple[int, ...]:
        return self.tokens or (self.proxy.tokens,)

    def architecture(self, depth: int, width: int, *, vocabulary: int) -> Architecture:
        """Returns the model of `depth` blocks. Raises ArchitectureError."""
        layers = " ".join([self.block] * depth)
        return Architecture.from_shorthand(layers, width=width, vocabulary=vocabulary, genes=self.genes)

    def shapes(self) -> list[tuple[int, int]]:
        """Returns depth and width of every point, the smallest first.

        So an interrupted grid is a whole grid of a smaller size.
        """
        return sorted(
            set(product(self.depths, self.widths)), key=lambda shape: (shape[0] * shape[1] ** 2, shape)
        )


@dataclass(frozen=True)
class Grid:
    """What is known of the points so far.

    settings: of the experiment.
    loss: by (depth, width, tokens), the mean over the seeds (nats per token).
    decode_ms: by shape (depth, width), then by metric.
    tainted: by shape, why its latencies are not to be trusted; shapes with clean latencies are absent.
    """

    settings: LawSettings
    loss: Mapping[tuple[int, int, int], float]
    decode_ms: Mapping[tuple[int, int], Mapping[str, float]]
    tainted: Mapping[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)

    def points(self, of: Quantity, tokens: int | None) -> Points:
        """Returns the points to fit.

        tokens: the budget of the points; None for all budgets.

        Raises ConfigError for a budget that was not trained.
        """
        known = sorted({budget for _, _, budget in self.loss})
        if tokens is not None and tokens not in known:
            raise ConfigError(
                f"--tokens {tokens}: expected a budget that was trained: "
                f"{', '.join(map(str, known)) or 'none is'}"
            )
        rows = [(*key, loss) for key, loss in sorted(self.loss.items()) if tokens in (None, key[2])]
        depth, width, budget, loss = np.array(rows, float).reshape(-1, 4).T
        return Points(depth, width, budget, perplexity(loss) if of == "perplexity" else loss)


def perplexity(loss: Floats) -> Floats:
    return np.asarray(np.exp(loss))


def label(depth: int, width: int) -> str:
    return f"depth {depth} width {width}"


def run(settings: LawSettings, *, results: Path, name: str, console: Console) -> Path:
    """Trains and measures what has no record yet; returns the folder.

    A training or measurement that fails is recorded with its reason.

    Raises our errors.
    """
    with experiment.session(settings, results=results, name=name, console=console) as at:
        points = {
            label(*shape): settings.architecture(*shape, vocabulary=at.corpus.vocabulary)
            for shape in settings.shapes()
        }
        budgets = list(product(map(settings.trained_with, settings.budgets), settings.seeds))
        wanted = {point: [Wanted(point, one, *budget) for budget in budgets] for point, one in points.items()}
        experiment.prepare_kernels(at, points.values(), measured=True)
        train_ahead(at, chain.from_iterable(wanted.values()))
        for point, architecture in points.items():
            experiment.measured(at, point, architecture)
            for training in wanted[point]:
                experiment.trained(at, training)
    return at.store.folder.path


def grid(results: Path, name: str) -> Grid:
    """Reads what an experiment knows so far. Raises RunError and ConfigError."""
    return grid_of(experiment_store.read(results, name, kind=LawSettings.kind))


def grid_of(store: Store) -> Grid:
    settings = experiment.parsed(LawSettings, store.settings, where=str(store.folder.path))
    loss, decode_ms, tainted = {}, {}, {}
    for shape in settings.shapes():
        latency = store.latencies.get(label(*shape))
        if latency is not None and latency.decode_ms:
            decode_ms[shape] = latency.decode_ms
            if latency.tainted:
                tainted[shape] = latency.tainted
        for tokens in settings.budgets:
            found = [store.trainings.get((label(*shape), tokens, seed)) for seed in settings.seeds]
            losses = [
                training.loss for training in found if training is not None and training.loss is not None
            ]
            if losses:
                loss[*shape, tokens] = fmean(losses)
    return Grid(settings, loss, decode_ms, tainted)
