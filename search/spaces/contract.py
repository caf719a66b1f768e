"""The interface between a searcher and the space that it searches."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

T = TypeVar("T")


class Space(Protocol[T]):
    """A set of members to sample, mutate and combine. All randomness comes from the given generator."""

    def seeds(self) -> Sequence[T]:
        """A few members worth trying first, such as the extremes. May be empty."""
        ...

    def sample(self, rng: Generator) -> T:
        """A random member. Raises ConfigError when none can be found."""
        ...

    def mutate(self, parent: T, rng: Generator) -> tuple[T, str] | None:
        """A member that differs from the parent in one respect, and the name of the respect.

        None when no such member can be found.
        """
        ...

    def crossover(self, a: T, b: T, rng: Generator) -> T | None:
        """A member made of two parents, perhaps equal to one of them. None when no such member is found."""
        ...

    def features(self, member: T) -> Mapping[str, float]:
        """The member as finite numbers. Every member has the same keys."""
        ...

    def key(self, member: T) -> str:
        """The member's identity: two members have one key only if they are equal."""
        ...


@runtime_checkable
class FeatureRows(Protocol):
    """What a Space may have besides: the features of many members at once, in less time.

    They are then taken from here. A space that changes `features` of another changes both.
    """

    def feature_rows(self, members: Sequence[Any]) -> NDArray[np.float64]:
        """The values of `features` of each of the members, at least one: [n, features]."""
        ...


def feature_rows(space: Space[T], members: Sequence[T]) -> NDArray[np.float64]:
    """The values of a space's features of each of the members, at least one: [n, features]."""
    if isinstance(space, FeatureRows):
        return space.feature_rows(members)
    return np.array([list(space.features(member).values()) for member in members], float)
