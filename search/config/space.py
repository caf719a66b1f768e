"""The `space` section of a run, and the choices that it gives for an architecture."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from operators import registry
from operators.architecture import Layer
from operators.base.errors import ArchitectureError, one_line
from operators.base.value import Value
from operators.engine_names import Engine
from search.config.choices import Choices, Norm

STAGES = 3  # early, middle, late
WRITTEN = "written"
"""The context of a validation: the settings were validated before they were written. See `run.parse`."""


class StageSettings(Value):
    """Three stages instead of free sequences, as in Nemotron-Flash: the `space.stages` section of a run.

    `max_depth` of the space bounds all stages together; the last stage is cut to it.

    ratios: ratios of a block's mixers. Each mixer takes its turn while it has turns left: `1:2` is x y y,
        `1:2:1` is x y z y, and `0:1` is one mixer alone. Ratios of more mixers than the space has are left
        out.
    feedforwards: numbers of feed-forward networks that may follow a mixer.
    max_repeats: largest number of repetitions of a stage's block.
    """

    ratios: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "0:1",
        "1:1",
        "1:2",
        "1:3",
        "1:1:1",
        "1:2:1",
        "1:1:2",
        "1:3:1",
        "1:1:3",
    )
    feedforwards: Annotated[tuple[Annotated[int, Field(ge=0, le=8)], ...], Field(min_length=1)] = (0, 1, 2)
    max_repeats: Annotated[int, Field(ge=1, le=64)] = 10

    @field_validator("ratios")
    @classmethod
    def _are_ratios(cls, ratios: tuple[str, ...]) -> tuple[str, ...]:
        for text in ratios:
            shares = text.split(":")
            if not all(share in set("0123456789") for share in shares) or not any(
                share != "0" for share in shares
            ):
                raise ValueError(f"expected shares of 0 to 9 that are not all 0, as in 1:2, got {text!r}")
        return ratios

    def shares(self, mixers: int) -> tuple[tuple[int, ...], ...]:
        """The ratios without their zeros.

        mixers: number of mixers in the space; ratios of more mixers are left out.
        """
        ratios = [tuple(int(share) for share in text.split(":") if share != "0") for text in self.ratios]
        return tuple(dict.fromkeys(ratio for ratio in ratios if len(ratio) <= mixers))


def require_sequences(
    settings: StageSettings, mixers: int, feedforwards: int, depths: tuple[int, int]
) -> None:
    """Raises ValueError, one line, if the settings allow no sequence of three stages.

    mixers, feedforwards: numbers of operators of each kind in the space.
    depths: fewest and most layers.
    """
    ratios, counts = settings.shares(mixers), settings.feedforwards
    if any(counts) and feedforwards != 1:
        raise ValueError(f"stages: expected one feed-forward network among operators, got {feedforwards}")
    if not ratios:
        raise ValueError(
            f"stages.ratios: expected one of at most {mixers} mixers, got {', '.join(settings.ratios)}"
        )
    smallest, largest = min(map(sum, ratios)) * (1 + min(counts)), max(map(sum, ratios)) * (1 + max(counts))
    least, most = (STAGES - 1) * smallest + 1, STAGES * largest * settings.max_repeats
    if depths[1] < least:
        raise ValueError(f"max_depth: expected at least {least} for {STAGES} stages, got {depths[1]}")
    if depths[0] > most:
        raise ValueError(
            f"min_depth: expected at most {most}, which {STAGES} stages can have, got {depths[0]}"
        )


T = TypeVar("T")


class SpaceSettings(Value):
    """What an architecture may be: the `space` section of a run.

    operators: names or symbols of operators. All of Frontrunner's own by default.
    widths: widths of the residual stream.
    min_depth: fewest layers.
    max_depth: most layers.
    genes: operator -> gene -> values to choose from, instead of the operator's own values. A gene is any
        parameter of `shape.make` of the operator but the width.
    meta_tokens: numbers of learned tokens before the text.
    norms: kinds and positions of a layer's normalization, as in
        `[[rmsnorm, before], [layernorm, before], [rmsnorm, after]]`. Each layer has one of them.
    normalized_head: whether the head of every architecture is normalized.
    stages: three stages, as in Nemotron-Flash (`search.spaces.stages`), instead of free sequences. `{}` means
        stages with their defaults, None free sequences.
    exportable_to: engines that must all load every architecture (`operators.published.engines`), None for
        no such constraint.
    max_tries: number of random draws after which the space counts as having no member.
    """

    operators: Annotated[tuple[str, ...], Field(min_length=1)] = Field(default_factory=registry.library_names)
    widths: Annotated[tuple[Annotated[int, Field(ge=8, le=65_536)], ...], Field(min_length=1)] = (
        96,
        128,
        160,
        192,
        256,
    )
    min_depth: Annotated[int, Field(ge=1, le=1024)] = 4
    max_depth: Annotated[int, Field(ge=1, le=1024)] = 16
    genes: Mapping[str, Mapping[str, tuple[bool | int | float | str | None, ...]]] = {}
    meta_tokens: Annotated[tuple[Annotated[int, Field(ge=0, le=65_536)], ...], Field(min_length=1)] = (0,)
    norms: Annotated[tuple[Norm, ...], Field(min_length=1)] = (("rmsnorm", "before"),)
    normalized_head: bool = False
    stages: StageSettings | None = None
    exportable_to: Annotated[tuple[Engine, ...], Field(min_length=1)] | None = None
    max_tries: Annotated[int, Field(ge=1)] = 1000

    @model_validator(mode="after")
    def _has_members(self, info: ValidationInfo) -> Self:
        if info.context == WRITTEN:
            return self
        if self.min_depth > self.max_depth:
            raise ValueError(
                f"expected min_depth to be at most max_depth, got {self.min_depth} and {self.max_depth}"
            )
        self.choices()
        _unique("exportable_to", self.exportable_to or ())
        if self.stages is not None:
            kinds = [registry.get(registry.name_of(token)).kind for token in self.operators]
            require_sequences(
                self.stages,
                kinds.count("mixer"),
                kinds.count("feedforward"),
                (self.min_depth, self.max_depth),
            )
        return self

    def choices(self) -> Choices:
        """What the settings let an architecture be. Raises ValueError if there is nothing."""
        names = tuple(sorted(_names("operators", self.operators)))
        widths = tuple(sorted(_unique("widths", self.widths)))
        asked = dict(zip(_names("genes", list(self.genes)), self.genes.values(), strict=True))
        if not any(registry.get(name).kind == "mixer" for name in names):
            mixers = [name for name in registry.names() if registry.get(name).kind == "mixer"]
            raise ValueError(
                f"operators: expected at least one mixer ({', '.join(mixers)}), got {', '.join(names)}"
            )
        for name in asked:
            if name not in names:
                raise ValueError(f"genes: expected operators of the space ({', '.join(names)}), got {name}")
        genes = {name: _genes(name, asked.get(name, {})) for name in names}
        layers = {(name, width): _layers(name, width, genes[name]) for name in names for width in widths}
        for name, chosen in asked.items():
            for gene, values in chosen.items():
                for value in values:
                    if not any(_uses(gene, value, genes[name], layers[name, width]) for width in widths):
                        reason = _why_not(name, widths[0], {gene: value})
                        raise ValueError(
                            f"genes.{name}.{gene}: no width of {_listed(widths)} can have {value!r}{reason}"
                        )
        for name in names:
            if not any(layers[name, width] for width in widths):
                raise ValueError(
                    f"operators: {name} cannot be built at any width of {_listed(widths)}"
                    f"{_why_not(name, widths[0], {})}"
                )
        for width in widths:
            if not any(layers[name, width] for name in names if registry.get(name).kind == "mixer"):
                raise ValueError(f"widths: no mixer of {', '.join(names)} can be built at width {width}")
        meta_tokens, norms = (
            tuple(_unique("meta_tokens", self.meta_tokens)),
            tuple(_unique("norms", self.norms)),
        )
        return Choices(names, widths, (self.min_depth, self.max_depth), meta_tokens, norms, genes, layers)

    def ranges(self) -> dict[str, tuple[int, int]]:
        """The least and the largest value of every feature that is a whole number, by name."""
        return {
            "width": (min(self.widths), max(self.widths)),
            "depth": (self.min_depth, self.max_depth),
            "meta_tokens": (min(self.meta_tokens), max(self.meta_tokens)),
        }


def _names(where: str, tokens: Sequence[str]) -> Sequence[str]:
    try:
        return _unique(where, [registry.name_of(token) for token in tokens])
    except ArchitectureError as error:
        raise ValueError(f"{where}: {error}") from None


def _unique(where: str, values: Sequence[T]) -> Sequence[T]:
    repeated = [value for number, value in enumerate(values) if value in values[:number]]
    if repeated:
        raise ValueError(f"{where}: expected each once, got {repeated[0]} twice")
    return values


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _genes(name: str, asked: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """The operator's genes with their values: its own, or the asked ones. Raises ValueError."""
    operator = registry.get(name)
    known = [
        parameter.name
        for parameter in inspect.signature(operator.shape.make).parameters.values()
        if parameter.name != "width"
    ]
    for gene, values in asked.items():
        if gene not in known:
            raise ValueError(
                f"genes.{name}: unknown gene {gene!r}: expected one of {', '.join(known) or 'none'}"
            )
        if not values:
            raise ValueError(f"genes.{name}.{gene}: expected at least one value, got none")
    return {**operator.genes, **asked}


def _layers(name: str, width: int, genes: Mapping[str, tuple[Any, ...]]) -> dict[tuple[Any, ...], Layer]:
    """{values of the genes: layer}, for every combination that exists at this width."""
    table, first_equal = {}, dict[Layer, Layer]()
    for values in product(*genes.values()):
        try:
            layer = Layer(
                operator=name,
                shape=registry.get(name).shape.make(width, **dict(zip(genes, values, strict=True))),
            )
            # Equal layers become one object: a search then looks them up by `id`, much faster than by hash.
            table[values] = first_equal.setdefault(layer, layer)
        except (ValueError, TypeError, ArithmeticError):
            continue  # the shape does not exist at this width, so it is no choice here
    return table


def _uses(
    gene: str, value: object, genes: Mapping[str, object], table: Mapping[tuple[Any, ...], Layer]
) -> bool:
    """Whether any layer of the table has this value of the gene."""
    column = list(genes).index(gene)
    return any(values[column] == value for values in table)


def _why_not(name: str, width: int, genes: Mapping[str, Any]) -> str:
    """The operator's own objection to these genes, with its defaults for the others: the end of a message."""
    try:
        registry.get(name).shape.make(width, **genes)
    except (ValueError, TypeError, ArithmeticError) as error:
        return f": {one_line(error) if isinstance(error, ValidationError) else error}"
    return ""
