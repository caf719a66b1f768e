"""Members of a space as whole numbers, for searchers that know nothing but such: Optuna's samplers, pymoo's NSGA-II."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.random import Generator

from search.space import Space

T = TypeVar("T")
Vector = tuple[int, ...]


@dataclass(frozen=True)
class Dimension:
    """A whole number from 0 to size - 1. ordered: whether neighbours are alike; otherwise the numbers are names."""

    size: int
    ordered: bool = True


class EncodedSpace(Space[T], Protocol[T]):
    """A space whose members can be written as whole numbers, one for each dimension."""

    @property
    def dimensions(self) -> Mapping[str, Dimension]:
        """The dimensions by name, always in the same order."""
        ...

    def encode(self, member: T) -> Mapping[str, int]:
        """The numbers of a member; those of the most similar one where numbers cannot say all that it is."""
        ...

    def decode(self, values: Mapping[str, int]) -> T | None:
        """The member with these numbers; None where they mean none. `decode(encode(decode(values)))` is `decode(values)`."""
        ...


@dataclass(frozen=True)
class IntegerSpace:
    """All vectors of whole numbers with the given dimensions; an EncodedSpace[tuple[int, ...]]."""

    dimensions: Mapping[str, Dimension]

    def seeds(self) -> tuple[Vector, ...]:
        """The two extremes of the ordered dimensions."""
        sizes = self.dimensions.values()
        return tuple(0 for _ in sizes), tuple(each.size - 1 if each.ordered else 0 for each in sizes)

    def sample(self, rng: Generator) -> Vector:
        return tuple(rng.integers([each.size for each in self.dimensions.values()]).tolist())

    def mutate(self, parent: Vector, rng: Generator) -> tuple[Vector, str] | None:
        """One number becomes its neighbour or, where there is none, or as often, any other."""
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
        """Each number from either."""
        return tuple(np.where(rng.random(len(a)) < 0.5, a, b).tolist())

    def features(self, member: Vector) -> dict[str, float]:
        """Ordered numbers scaled to 0 … 1, each of the others as a column for each of its values."""
        found: dict[str, float] = {}
        for (name, dimension), value in zip(self.dimensions.items(), member, strict=True):
            if dimension.ordered:
                found[name] = value / max(1, dimension.size - 1)
            else:
                found |= {f"{name}={option}": float(option == value) for option in range(dimension.size)}
        return found

    def key(self, member: Vector) -> str:
        return ",".join(map(str, member))

    def encode(self, member: Vector) -> dict[str, int]:
        return dict(zip(self.dimensions, member, strict=True))

    def decode(self, values: Mapping[str, int]) -> Vector:
        return tuple(values[name] for name in self.dimensions)
