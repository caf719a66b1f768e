"""Members of a space as whole numbers, for searchers that take only numbers, such as Optuna's samplers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from operators import Architecture
from search.config.choices import norm_of, normalized
from search.spaces.contract import Space
from search.spaces.free import ArchitectureSpace

T = TypeVar("T")
V = TypeVar("V")
Vector = tuple[int, ...]


@dataclass(frozen=True)
class Dimension:
    """One whole number of an encoded member.

    size: the number is from 0 to size - 1.
    ordered: whether neighbouring numbers mean similar members; otherwise the numbers are only names.
    """

    size: int
    ordered: bool = True


class EncodedSpace(Space[T], Protocol[T]):
    """A space whose members can be written as whole numbers, one for each dimension."""

    @property
    def dimensions(self) -> Mapping[str, Dimension]:
        """Name -> dimension, always in the same order."""
        ...

    def encode(self, member: T) -> Mapping[str, int]:
        """The numbers of a member, or of the most similar member that numbers can express."""
        ...

    def decode(self, values: Mapping[str, int]) -> T | None:
        """The member with these numbers; None if no member has them.

        `decode(encode(decode(values)))` is `decode(values)`.
        """
        ...


@dataclass(frozen=True)
class ArchitectureEncoding:
    """An EncodedSpace[Architecture]: equal layers for each operator, and one normalization for all.

    Its dimensions are width, depth, meta tokens, normalization, the operator of each place, and each gene of
    each operator. Operators of places beyond the depth have no effect. Where a width cannot have the genes,
    the choice that shares most of them is taken.

    space: the space whose members are encoded.
    """

    space: ArchitectureSpace

    @cached_property
    def dimensions(self) -> Mapping[str, Dimension]:
        choices = self.space.choices
        low, high = choices.depths
        named = {
            "width": Dimension(len(choices.widths)),
            "depth": Dimension(high - low + 1),
            "meta_tokens": Dimension(len(choices.meta_tokens)),
            "norm": Dimension(len(choices.norms), ordered=False),
        }
        named |= {f"layer{place}": Dimension(len(choices.operators), ordered=False) for place in range(high)}
        for name, genes in choices.genes.items():
            named |= {
                f"{name}.{gene}": Dimension(len(options), _numbers(options))
                for gene, options in genes.items()
            }
        return named

    def seeds(self) -> Sequence[Architecture]:
        return self.space.seeds()

    def sample(self, rng: Generator) -> Architecture:
        return self.space.sample(rng)

    def mutate(self, parent: Architecture, rng: Generator) -> tuple[Architecture, str] | None:
        return self.space.mutate(parent, rng)

    def crossover(self, a: Architecture, b: Architecture, rng: Generator) -> Architecture | None:
        return self.space.crossover(a, b, rng)

    def features(self, member: Architecture) -> dict[str, float]:
        return self.space.features(member)

    def feature_rows(self, members: Sequence[Architecture]) -> NDArray[np.float64]:
        return self.space.feature_rows(members)

    def key(self, member: Architecture) -> str:
        return self.space.key(member)

    def encode(self, member: Architecture) -> dict[str, int]:
        """The commonest shape of each operator's layers; 0 for the genes of operators that are absent."""
        choices = self.space.choices
        values = dict.fromkeys(self.dimensions, 0)
        values["width"] = choices.widths.index(member.width)
        values["depth"] = member.depth - choices.depths[0]
        values["meta_tokens"] = choices.meta_tokens.index(member.meta_tokens)
        values["norm"] = choices.norms.index(_commonest([norm_of(layer) for layer in member.layers]))
        for place, layer in enumerate(member.layers):
            values[f"layer{place}"] = choices.operators.index(layer.operator)
        for name in sorted({layer.operator for layer in member.layers}):
            usual = choices.values(
                _commonest([layer for layer in member.layers if layer.operator == name]), member.width
            )
            for (gene, options), value in zip(
                choices.genes[name].items(), usual or (), strict=usual is not None
            ):
                values[f"{name}.{gene}"] = options.index(value)
        return values

    def decode(self, values: Mapping[str, int]) -> Architecture | None:
        choices, width = self.space.choices, self.space.choices.widths[values["width"]]
        depth, layers = choices.depths[0] + values["depth"], []
        names = self.space.of_one_model(
            [choices.operators[values[f"layer{place}"]] for place in range(depth)]
        )
        for name in names:
            wanted = tuple(options[values[f"{name}.{gene}"]] for gene, options in choices.genes[name].items())
            nearest = choices.nearest(name, width, wanted)
            if nearest is None:
                return None
            layers.append(normalized(nearest, choices.norms[values["norm"]]))
        member = Architecture(
            width=width,
            layers=tuple(layers),
            vocabulary=self.space.vocabulary,
            meta_tokens=choices.meta_tokens[values["meta_tokens"]],
            normalized_head=self.space.settings.normalized_head,
        )
        return self.space.settled(member)


def _numbers(options: Sequence[object]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in options)


def _commonest(values: Sequence[V]) -> V:
    """The commonest value; the first of equally common ones."""
    return max(values, key=values.count)


@dataclass(frozen=True)
class IntegerSpace:
    """An EncodedSpace[tuple[int, ...]]: all vectors of whole numbers with the given dimensions."""

    dimensions: Mapping[str, Dimension]

    def seeds(self) -> tuple[Vector, ...]:
        """The smallest and the largest values of the ordered dimensions, with 0 for all others."""
        sizes = self.dimensions.values()
        return tuple(0 for _ in sizes), tuple(each.size - 1 if each.ordered else 0 for each in sizes)

    def sample(self, rng: Generator) -> Vector:
        return tuple(rng.integers([each.size for each in self.dimensions.values()]).tolist())

    def mutate(self, parent: Vector, rng: Generator) -> tuple[Vector, str] | None:
        """Changes one number: half of the time to a neighbour if it is ordered, otherwise to any value."""
        where = int(rng.integers(len(parent)))
        dimension = tuple(self.dimensions.values())[where]
        if dimension.ordered and rng.random() < 0.5:
            value, name = parent[where] + int(rng.choice([-1, 1])), "step"
        else:
            value, name = int(rng.integers(dimension.size)), "redraw"
        if value == parent[where] or not 0 <= value < dimension.size:
            return None
        return (*parent[:where], value, *parent[where + 1 :]), name

    def crossover(self, a: Vector, b: Vector, rng: Generator) -> Vector:
        """Takes each number from either parent."""
        return tuple(np.where(rng.random(len(a)) < 0.5, a, b).tolist())

    def features(self, member: Vector) -> dict[str, float]:
        """Ordered numbers scaled to 0 … 1; every other number as one 0 or 1 for each of its values."""
        columns: dict[str, float] = {}
        for (name, dimension), value in zip(self.dimensions.items(), member, strict=True):
            if dimension.ordered:
                columns[name] = value / max(1, dimension.size - 1)
            else:
                columns |= {f"{name}={option}": float(option == value) for option in range(dimension.size)}
        return columns

    def key(self, member: Vector) -> str:
        return ",".join(map(str, member))

    def encode(self, member: Vector) -> dict[str, int]:
        return dict(zip(self.dimensions, member, strict=True))

    def decode(self, values: Mapping[str, int]) -> Vector:
        return tuple(values[name] for name in self.dimensions)
