"""What comparisons share: a searcher on a problem, and means with their errors."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np

from search.benchmarks.problems import PROBLEMS, Problem
from search.searchers.contract import Proposer

T = TypeVar("T")
Points = list[tuple[float, ...]]


@cache
def problem_named(name: str) -> Problem[Any]:
    """Returns the problem of that name; it is made once in a process, which can take many seconds."""
    return PROBLEMS[name]()


def drive(
    proposer: Proposer[T],
    objectives: Callable[[T], tuple[float, ...]],
    budget: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Points, list[float]]:
    """Returns scores in their order, and the seconds of each ask and tell by `clock`.

    budget: number of evaluations.
    """
    points: Points = []
    times: list[float] = []
    for _ in range(budget):
        start = clock()
        proposal = proposer.ask()
        asked = clock()
        points.append(objectives(proposal.candidate))
        evaluated = clock()
        proposer.tell(proposal.number, points[-1])
        times.append(asked - start + clock() - evaluated)
    return points, times


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean of two values or more, and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
