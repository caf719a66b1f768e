"""What a searcher needs to know of a space."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from numpy.random import Generator

T = TypeVar("T")


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
