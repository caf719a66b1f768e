"""Measures what each mixer is worth, alone and in pairs, each beside a feed-forward network.

All models have equal parameters or equal latency, as in the table of a paper's §2, so that a difference in
loss comes from the operators and not from the size:

    frontrunner study operators study_operators_cpu
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from rich.console import Console

from operators import Architecture, registry
from operators.base.errors import ConfigError, DeviceError
from operators.cost import parameters
from search.studies import experiment
from search.studies.experiment import ExperimentSettings, Session, Wanted, Width
from search.studies.parallel import train_ahead

# Of parameters: models count as equal within this share.
TOLERANCE = 0.02
# Sizes of feed-forward networks are multiples of this where they make up for parameters.
_HIDDEN_STEP = 8
# Widths are tried up to this many times the given one.
_WIDEST = 4

Mixers = tuple[str, ...]
Equal = Literal["parameters", "latency"]


class OperatorSettings(ExperimentSettings):
    """What `study operators` compares: `mixer f` and `mixer f mixer f`, repeated to `layers` operators.

    mixers: names or symbols, each alone.
    pairs: of mixers; every pair of them where none is given.
    feedforward: the feed-forward network, by name or symbol.
    layers: operators of each model.
    width: of the model of the first mixer alone. All others get its parameters or its decode latency (at the
        profile's first batch size and context) by a width of their own.
    width_step: every width of the others is a multiple of it. For equal parameters the size of the
        feed-forward networks makes up for what a step leaves.
    equal: what all models share, parameters or latency.
    genes: operator -> gene -> value, where it differs from the operator's own.

    With proxy.weight_normalization the head is normalized too.
    """

    kind: ClassVar[str] = "operators"
    grows: ClassVar[frozenset[str]] = ExperimentSettings.grows | {
        *("mixers", "pairs", "feedforward", "layers", "width", "width_step", "equal", "genes")
    }

    mixers: Annotated[tuple[str, ...], Field(min_length=1)]
    pairs: tuple[tuple[str, str], ...] | None = None
    feedforward: str = "swiglu"
    layers: Annotated[int, Field(ge=4, le=1024, multiple_of=4)] = 8
    width: Width
    width_step: Annotated[int, Field(ge=1)] = 8
    equal: Equal = "parameters"
    genes: Mapping[str, Mapping[str, Any]] = {}

    @model_validator(mode="after")
    def _names_are_operators(self) -> Self:
        for names, kind in (
            (self.mixers, "mixer"),
            (sum(self.pairs or (), ()), "mixer"),
            ((self.feedforward,), "feedforward"),
        ):
            for name in names:
                if registry.get(registry.name_of(name)).kind != kind:
                    raise ValueError(f"{name}: expected an operator of kind {kind}")
        for name in self.genes:
            registry.get(name)
        for mixers in self.blocks():
            self.architecture(mixers, self.width, vocabulary=self.data.vocabulary)
        return self

    def blocks(self) -> list[Mixers]:
        """Returns every mixer alone, then the pairs, by the operators' names."""
        alone = [(registry.name_of(mixer),) for mixer in self.mixers]
        pairs = combinations(self.mixers, 2) if self.pairs is None else self.pairs
        return list(dict.fromkeys([*alone, *((registry.name_of(a), registry.name_of(b)) for a, b in pairs)]))

    def architecture(
        self, mixers: Mixers, width: int, *, vocabulary: int, hidden: int | None = None
    ) -> Architecture:
        """Returns the architecture of that width.

        hidden: size of the feed-forward networks; None for their own.

        Raises ArchitectureError.
        """
        feedforward = registry.name_of(self.feedforward)
        block = " ".join(f"{mixer} {feedforward}" for mixer in mixers)
        genes = dict(self.genes)
        if hidden is not None:
            genes[feedforward] = {**genes.get(feedforward, {}), "ratio": hidden / width}
        repeats = self.layers // (2 * len(mixers))
        layers, normalized = " ".join([block] * repeats), self.proxy.weight_normalization
        return Architecture.from_shorthand(
            layers, width=width, vocabulary=vocabulary, genes=genes, normalized_head=normalized
        )


@dataclass(frozen=True)
class Row:
    """One block of the table.

    loss: mean over the seeds (nats per token); None where every training failed.
    spread: standard deviation of the losses; None for one seed.
    decode_ms: by metric; empty where the measurement failed.
    problem: why something failed.
    tainted: why the latencies are not to be trusted.
    """

    mixers: Mixers
    shorthand: str
    width: int
    params: int
    loss: float | None
    spread: float | None
    decode_ms: Mapping[str, float]
    problem: str = ""
    tainted: tuple[str, ...] = ()


def run(settings: OperatorSettings, *, results: Path, name: str, console: Console) -> list[Row]:
    """Trains and measures what has no record yet.

    Returns a row for each block, the lowest loss first, blocks that failed at the end.
    """
    with experiment.session(settings, results=results, name=name, console=console) as at:
        first, *others = settings.blocks()
        alike = [
            settings.architecture(mixers, settings.width, vocabulary=at.corpus.vocabulary)
            for mixers in settings.blocks()
        ]
        # The others' widths are found later, but many of their kernels are the same as at this width.
        experiment.prepare_kernels(at, alike, measured=True)
        reference = alike[0]
        if settings.equal == "parameters":
            target = parameters(reference)
            sized = [
                with_parameters(settings, mixers, target, vocabulary=at.corpus.vocabulary)
                for mixers in others
            ]
        else:
            sized = [_with_latency(at, settings, mixers, _ms(at, settings, reference)) for mixers in others]
        wanted = [_wanted(settings, architecture) for architecture in (reference, *sized)]
        train_ahead(at, chain.from_iterable(wanted))
        rows = [_row(at, settings, *both) for both in zip((first, *others), wanted, strict=True)]
    return sorted(rows, key=lambda row: (row.loss is None, row.loss or 0.0))


def with_parameters(
    settings: OperatorSettings, mixers: Mixers, target: int, *, vocabulary: int
) -> Architecture:
    """Returns a model of about `target` parameters.

    Its width is the nearest one, and then the size of its feed-forward networks is the nearest one.

    Raises ConfigError.
    """

    def params(width: int, hidden: int | None = None) -> int:
        return parameters(settings.architecture(mixers, width, vocabulary=vocabulary, hidden=hidden))

    width = min(_widths(settings), key=lambda width: abs(params(width) - target))
    slope = params(width, 2 * _HIDDEN_STEP) - params(width, _HIDDEN_STEP)
    steps = 1 + round((target - params(width, _HIDDEN_STEP)) / slope)
    found = settings.architecture(mixers, width, vocabulary=vocabulary, hidden=max(1, steps) * _HIDDEN_STEP)
    if abs(parameters(found) / target - 1) > TOLERANCE:
        raise ConfigError(
            f"{'+'.join(mixers)}: expected {target:,} parameters within {TOLERANCE:.0%}, "
            f"the nearest are {parameters(found):,}; "
            f"a smaller width_step or more layers may help"
        )
    return found


def nearest(widths: Sequence[int], ms: Any, target: float) -> int:
    """Returns the width whose time `ms(width)` is nearest to the target.

    It bisects, so that few widths are measured: times grow with the width.
    """
    low, high = 0, len(widths) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if ms(widths[middle]) < target else (low, middle)
    return min((widths[low], widths[high]), key=lambda width: abs(ms(width) - target))


def _widths(settings: OperatorSettings) -> list[int]:
    step = settings.width_step
    return [width for width in range(step, _WIDEST * settings.width + 1, step) if width >= _HIDDEN_STEP]


def _with_latency(at: Session, settings: OperatorSettings, mixers: Mixers, target: float) -> Architecture:
    def at_width(width: int) -> Architecture:
        return settings.architecture(mixers, width, vocabulary=at.corpus.vocabulary)

    return at_width(nearest(_widths(settings), lambda width: _ms(at, settings, at_width(width)), target))


def _ms(at: Session, settings: OperatorSettings, architecture: Architecture) -> float:
    found = experiment.measured(at, _label(architecture), architecture)
    if found.problem:
        raise DeviceError(
            f"{_label(architecture)} cannot be measured, and equal latency needs it: {found.problem}"
        )
    return found.decode_ms[settings.profile.keys("decode_ms")[0]]


def _label(architecture: Architecture) -> str:
    symbols = "+".join(dict.fromkeys(architecture.shorthand.split()))
    return f"{symbols} width {architecture.width} {architecture.digest()[:8]}"


def _wanted(settings: OperatorSettings, architecture: Architecture) -> list[Wanted]:
    return [Wanted(_label(architecture), architecture, settings.proxy, seed) for seed in settings.seeds]


def _row(at: Session, settings: OperatorSettings, mixers: Mixers, wanted: Sequence[Wanted]) -> Row:
    architecture = wanted[0].architecture
    latency = experiment.measured(at, wanted[0].label, architecture)
    trainings = [experiment.trained(at, one) for one in wanted]
    losses = [training.loss for training in trainings if training.loss is not None]
    problems = [
        *([latency.problem] if latency.problem else []),
        *(training.reason for training in trainings if training.loss is None),
    ]
    return Row(
        mixers=mixers,
        shorthand=architecture.shorthand,
        width=architecture.width,
        params=parameters(architecture),
        loss=fmean(losses) if losses else None,
        spread=stdev(losses) if len(losses) > 1 else None,
        decode_ms=latency.decode_ms,
        problem="; ".join(problems),
        tainted=latency.tainted,
    )
