"""Drives a searcher by ask and tell with evaluations pending, as a search does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.random import Generator

from search.searchers.contract import Proposal, Proposer

T = TypeVar("T")


Point = tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """Vectors of whole numbers below `size`; a Space[Point].

    length: numbers of a vector.
    size: the numbers are below it.
    corners: the seeds of the space.
    """

    length: int = 8
    size: int = 10
    corners: tuple[Point, ...] = ()

    def seeds(self) -> tuple[Point, ...]:
        return self.corners

    def sample(self, rng: Generator) -> Point:
        return tuple(rng.integers(self.size, size=self.length).tolist())

    def mutate(self, parent: Point, rng: Generator) -> tuple[Point, str] | None:
        where, step = int(rng.integers(self.length)), int(rng.choice([-1, 1]))
        child = (*parent[:where], min(self.size - 1, max(0, parent[where] + step)), *parent[where + 1 :])
        return (child, "up" if step > 0 else "down") if child != parent else None

    def crossover(self, a: Point, b: Point, rng: Generator) -> Point | None:
        cut = int(rng.integers(self.length))
        return a[:cut] + b[cut:]

    def features(self, member: Point) -> dict[str, float]:
        return {f"x{number}": float(value) for number, value in enumerate(member)}

    def key(self, member: Point) -> str:
        return repr(member)


def scores(x: Point) -> tuple[float, float]:
    """Returns two costs: their frontier goes from all zeros to all nines by vectors of equal numbers.

    Unequal numbers cost extra in both.
    """
    mean, uneven = float(np.mean(x)) / 9, float(np.std(x)) / 3
    return (mean + uneven, (1 - mean) ** 2 + uneven)


Event = tuple[str, Any]


def drive(
    proposer: Proposer[Any],
    count: int,
    *,
    pending: int = 3,
    seed: int = 0,
    score: Callable[[Any], tuple[float, ...]] = scores,
) -> list[Event]:
    """Asks `count` times with several pending, and tells in a random order, with failures.

    pending: the most proposals that wait for their result.
    seed: of the order and the failures.
    score: candidate -> costs.

    Returns what happened, in its order.
    """
    rng, waiting, events = np.random.default_rng(seed), list[Proposal[Any]](), list[Event]()
    for _ in range(count):
        proposal = proposer.ask()
        waiting.append(proposal)
        events.append(("propose", proposal))
        while len(waiting) > pending:
            done = waiting.pop(int(rng.integers(len(waiting))))
            result = None if rng.random() < 0.15 else score(done.candidate)
            proposer.tell(done.number, result)
            events.append(("tell", (done.number, result)))
    return events
