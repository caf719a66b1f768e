"""What a search may try: the protocol of a search space, and the space of architectures."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Protocol, Self, TypeVar

from numpy.random import Generator
from pydantic import Field, ValidationError, model_validator

from operators import registry
from operators.architecture import Architecture, Layer
from operators.base.errors import ArchitectureError, ConfigError, one_line
from operators.base.value import Value
from search.config.choices import Choices, Norm, norm_of, normalized
from search.spaces import mutate
from search.spaces.features import Features
from search.spaces.mutate import pick
from search.spaces.seeds import designs_of, first_members, rescaled_to, shallow_members
from search.spaces.stages import StageSettings, require_sequences

T = TypeVar("T")

CHILD_TRIES = 50
"""How many children of the same parents are made before they are said to have none; a proposer can turn to others."""


class Space(Protocol[T]):
    """What a proposer needs to know of the things that it searches. All randomness comes from the generator given."""

    def seeds(self) -> Sequence[T]:
        """A few members worth trying first, such as the extremes; may be empty."""
        ...

    def sample(self, rng: Generator) -> T:
        """A random member. Raises ConfigError when none can be found."""
        ...

    def mutate(self, parent: T, rng: Generator) -> tuple[T, str] | None:
        """A member that differs from the parent in one respect, and that respect's name; None when none can be found."""
        ...

    def crossover(self, a: T, b: T, rng: Generator) -> T | None:
        """A member made of two, perhaps equal to one of them; None when none can be found."""
        ...

    def features(self, member: T) -> Mapping[str, float]:
        """The member in finite numbers, with the same keys for every member."""
        ...

    def key(self, member: T) -> str:
        """The member's identity: equal for equal members alone."""
        ...


class SpaceSettings(Value):
    """The `space` section of a run.

    operators: names or symbols, all that exist by default. widths: of the residual stream. min_depth, max_depth: layers.
    genes: operator -> gene -> values to choose from, instead of the operator's own; any gene that its shape can be made from.
    meta_tokens: numbers of learned tokens before the text. norms: kinds and positions of a layer's normalization, as in
    `[[rmsnorm, before], [layernorm, before], [rmsnorm, after]]`; each layer has one of them. normalized_head: of all architectures.
    stages: where it is given, even as `{}`, sequences are not free but those of Nemotron-Flash's space (`search.spaces.stages`).
    max_tries: draws after which the space is said to have no member.
    """

    operators: Annotated[tuple[str, ...], Field(min_length=1)] = Field(default_factory=registry.names)
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
    max_tries: Annotated[int, Field(ge=1)] = 1000

    @model_validator(mode="after")
    def _has_members(self) -> Self:
        if self.min_depth > self.max_depth:
            raise ValueError(
                f"expected min_depth to be at most max_depth, got {self.min_depth} and {self.max_depth}"
            )
        choices_of(self)
        if self.stages is not None:
            kinds = [registry.get(registry.name_of(token)).kind for token in self.operators]
            require_sequences(
                self.stages,
                kinds.count("mixer"),
                kinds.count("feedforward"),
                (self.min_depth, self.max_depth),
            )
        return self


def choices_of(settings: SpaceSettings) -> Choices:
    """All that the settings let an architecture be made of. Raises ValueError, one line, for settings that let none be made."""
    names = tuple(sorted(_names("operators", settings.operators)))
    widths = tuple(sorted(_unique("widths", settings.widths)))
    asked = dict(zip(_names("genes", list(settings.genes)), settings.genes.values(), strict=True))
    if not any(registry.get(name).kind == "mixer" for name in names):
        mixers = [name for name in registry.names() if registry.get(name).kind == "mixer"]
        raise ValueError(
            f"operators: expected at least one mixer ({', '.join(mixers)}), got {', '.join(names)}"
        )
    for name in asked:
        if name not in names:
            raise ValueError(f"genes: {name} is not among the operators {', '.join(names)}")
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
                f"operators: {name} cannot be built at any width of {_listed(widths)}{_why_not(name, widths[0], {})}"
            )
    for width in widths:
        if not any(layers[name, width] for name in names if registry.get(name).kind == "mixer"):
            raise ValueError(f"widths: no mixer of {', '.join(names)} can be built at width {width}")
    meta_tokens, norms = (
        tuple(_unique("meta_tokens", settings.meta_tokens)),
        tuple(_unique("norms", settings.norms)),
    )
    return Choices(names, widths, (settings.min_depth, settings.max_depth), meta_tokens, norms, genes, layers)


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
    """{values of the genes: layer} for every combination that `width` can have."""
    table, made = {}, dict[Layer, Layer]()
    for values in product(*genes.values()):
        try:
            layer = Layer(
                operator=name,
                shape=registry.get(name).shape.make(width, **dict(zip(genes, values, strict=True))),
            )
            table[values] = made.setdefault(layer, layer)  # equal ones are one and the same
        except (
            ValueError,
            TypeError,
            ArithmeticError,
        ):  # a shape that does not exist at this width is no choice there
            continue
    return table


def _uses(
    gene: str, value: object, genes: Mapping[str, object], table: Mapping[tuple[Any, ...], Layer]
) -> bool:
    column = list(genes).index(gene)
    return any(values[column] == value for values in table)


def _why_not(name: str, width: int, genes: Mapping[str, Any]) -> str:
    """What the operator itself says of these genes with its defaults for the others, to be put behind a message."""
    try:
        registry.get(name).shape.make(width, **genes)
    except (ValueError, TypeError, ArithmeticError) as error:
        return f": {one_line(error) if isinstance(error, ValidationError) else error}"
    return ""


def accepts_everything(architecture: Architecture) -> bool:
    return True


@dataclass(frozen=True)
class ArchitectureSpace:
    """Sequences of operators with their shapes, at every width and depth that the settings allow; a Space[Architecture].

    accepts: a run's cheap constraints, such as a bound on parameters. Each architecture returned is legal and accepted.
    What the settings do not speak of (RoPE, tied embeddings) has its default; a child has it from its parents.
    """

    settings: SpaceSettings
    vocabulary: int
    accepts: Callable[[Architecture], bool] = accepts_everything

    @cached_property
    def choices(self) -> Choices:
        return choices_of(self.settings)

    def contains(self, architecture: Architecture) -> str | None:
        """The reason why the architecture is not legal here, or None. Does not ask `accepts`."""
        choices, width = self.choices, architecture.width
        low, high = choices.depths
        if architecture.vocabulary != self.vocabulary:
            return f"vocabulary: expected {self.vocabulary}, got {architecture.vocabulary}"
        if width not in choices.widths:
            return f"width: expected one of {_listed(choices.widths)}, got {width}"
        if not low <= architecture.depth <= high:
            return f"layers: expected {low} to {high}, got {architecture.depth}"
        if architecture.meta_tokens not in choices.meta_tokens:
            return (
                f"meta_tokens: expected one of {_listed(choices.meta_tokens)}, got {architecture.meta_tokens}"
            )
        if architecture.normalized_head != self.settings.normalized_head:
            return f"normalized_head: expected {self.settings.normalized_head}, got {architecture.normalized_head}"
        parts = choices.parts(architecture.layers, width)
        if parts is None:
            unknown = next(
                number
                for number, layer in enumerate(architecture.layers)
                if choices.parts([layer], width) is None
            )
            return self._unknown(unknown, architecture.layers[unknown], width)
        if not any(part.mixer for part in parts):
            return "layers: expected at least one mixer, got feed-forward networks alone"
        return None

    def _unknown(self, number: int, layer: Layer, width: int) -> str:
        """The reason why a layer is none of the choices."""
        choices = self.choices
        if layer.operator not in choices.operators:
            return f"layers.{number}: expected one of {_listed(choices.operators)}, got {layer.operator}"
        if norm_of(layer) not in choices.norms:
            known = _listed(" ".join(norm) for norm in choices.norms)
            return f"layers.{number}: expected a normalization of {known}, got {layer.norm} {layer.norm_position}"
        return f"layers.{number}.shape: no genes of {layer.operator} at width {width} give {layer.shape}"

    def sample(self, rng: Generator) -> Architecture:
        for _ in range(self.settings.max_tries):
            architecture = self._draw(rng)
            if self._legal(architecture):
                return architecture
        raise ConfigError(
            f"space: none of {self.settings.max_tries} random architectures meets the constraints; widen the space or relax them"
        )

    def mutate(self, parent: Architecture, rng: Generator) -> tuple[Architecture, str] | None:
        names = list(mutate.MUTATIONS)
        for _ in range(CHILD_TRIES):
            name = pick(names, rng)
            child = mutate.MUTATIONS[name](parent, self.choices, rng)
            if child is None or mutate.alike(child, parent):
                continue
            if self._legal(child):
                return child, name
        return None

    def crossover(self, a: Architecture, b: Architecture, rng: Generator) -> Architecture | None:
        for _ in range(CHILD_TRIES):
            child = mutate.crossover(a, b, self.choices, rng)
            if child is not None and self._legal(child):
                return child
        return None

    def key(self, member: Architecture) -> str:
        # A digest would tell members apart too; this takes a tenth of its time, as most layers are one and the same value.
        parts = self.choices.parts(member.layers, member.width)
        layers = (
            [layer.model_dump_json() for layer in member.layers]
            if parts is None
            else [part.written for part in parts]
        )
        return member.model_dump_json(exclude={"name", "layers"}) + "".join(layers)

    def settled(self, architecture: Architecture) -> Architecture | None:
        """The accepted member that an architecture made elsewhere stands for: itself, if it is one."""
        return architecture if self._legal(architecture) else None

    def seeds(self) -> tuple[Architecture, ...]:
        """The corners of the space, published designs as near as it has them, and each mixer alone; named after what they are."""
        return first_members(self.choices, self._build, self._legal)

    def shallow(self) -> Iterator[Architecture]:
        """Each mixer alone, as shallow and narrow as is legal; those of three stages too are such a sequence."""
        return shallow_members(self.choices, self._build, self._legal)

    def designs(self) -> tuple[Architecture, ...]:
        """Published designs at each width of the space where it has them, in proportion; named after what they are, equal ones once."""
        designs, widths = designs_of(self.choices.operators), self.choices.widths
        found = [
            rescaled_to(design, width, self.choices, self._build) for design in designs for width in widths
        ]
        legal = [member for member in found if member is not None and self._legal(member)]
        return tuple({member.digest(): member for member in reversed(legal)}.values())[::-1]

    def features(self, member: Architecture) -> dict[str, float]:
        """Counts and positions of operators, sizes, and what genes they have (`search.spaces.features`)."""
        parts = self.choices.parts(member.layers, member.width)
        if parts is None:
            raise ValueError(f"expected a member of the space, got {self.contains(member)}")
        return self._features(member, parts)

    @cached_property
    def _features(self) -> Features:
        return Features(self.choices)

    def _draw(self, rng: Generator) -> Architecture:
        """A random architecture that looks like a real one: repeated blocks, or mixers and feed-forward networks by turns."""
        low, high = self.choices.depths
        width, depth = pick(self.choices.widths, rng), int(rng.integers(low, high + 1))
        mixers, feedforwards = (self.choices.available(width, kind) for kind in ("mixer", "feedforward"))
        mixers = tuple(rng.permutation(mixers)[: rng.integers(1, 4)].tolist())
        feedforwards = (
            tuple(rng.permutation(feedforwards)[:1].tolist()) if rng.random() < 0.8 else feedforwards
        )
        follows = pick((0.8, 0.95, 1.0), rng) if feedforwards else 0.0
        names: list[str] = []
        length = depth if rng.random() < 0.5 else int(rng.integers(1, 7))
        while len(names) < length:
            names.append(pick(mixers, rng))
            if rng.random() < follows:
                names += [pick(feedforwards, rng)] * (2 if rng.random() < 0.1 else 1)
        repeated = (names * depth)[:depth]
        usual = {name: pick(self.choices.at(name, width), rng) for name in sorted(set(repeated))}
        layers = [
            pick(self.choices.at(name, width), rng) if rng.random() < 0.1 else usual[name]
            for name in repeated
        ]
        return self._build(width, self._normalize(layers, rng), pick(self.choices.meta_tokens, rng))

    def _normalize(self, layers: Sequence[Layer], rng: Generator) -> Sequence[Layer]:
        """One normalization for all layers or, as often, one for the first and one for the rest."""
        norms = self.choices.norms
        if len(norms) == 1:
            return [normalized(layer, norms[0]) for layer in layers]
        first, rest = pick(norms, rng), pick(norms, rng)
        cut = int(rng.integers(len(layers) + 1)) if rng.random() < 0.5 else 0
        return [normalized(layer, first if number < cut else rest) for number, layer in enumerate(layers)]

    def _legal(self, architecture: Architecture) -> bool:
        return self.contains(architecture) is None and self.accepts(architecture)

    def _build(self, width: int, layers: Sequence[Layer], meta_tokens: int, name: str = "") -> Architecture:
        surroundings = {
            "vocabulary": self.vocabulary,
            "meta_tokens": meta_tokens,
            "normalized_head": self.settings.normalized_head,
        }
        return Architecture.parse(
            {"name": name, "width": width, "layers": tuple(layers), **surroundings}, where="space"
        )
