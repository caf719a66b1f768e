"""Benchmark: the searcher `guided` against BoTorch's qLogNEHVI, on architectures.

Bayesian optimization with qLogNEHVI is what many would take for few and dear evaluations. Both begin with the
same 20 members of the space for each seed, see the same features of members, and propose one at a time.
`search.benchmarks.bayesian` says how members are rated where there is no slope to follow.

    pip install botorch
    frontrunner bench botorch

The record has the hypervolume that each reaches, differences between runs with the same seed, and the time of
the processor for a proposal. Each run has one thread of a process; as many run at once as there are cores.
Nothing is trained or measured.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from operators.base.threads import compute_with_one_thread
from profiler.process.pool import process_pool
from search.benchmarks.bayesian import BEGINNING, Bayesian, log_nehvi
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.comparison import drive, mean_and_error, problem_named
from search.config.searcher import EvolutionSettings
from search.searchers.contract import Proposer
from search.searchers.registry import searcher

REPEATS = 10
BUDGETS = (50, 80)
# Those of the problems that have architectures, and need no package.
PROBLEMS = ("made-up-architectures", "recorded-h200-small")
OURS, OTHER = METHODS = ("guided", "qlognehvi")

Row = Mapping[str, Any]


def compare(device: str, console: Console) -> Measured:
    """Means and paired differences of normalized hypervolumes, and every single one."""
    runs = [(name, method, seed) for name in PROBLEMS for seed in range(REPEATS) for method in METHODS]
    with process_pool(initializer=compute_with_one_thread) as pool:
        rows = []
        for row in pool.map(_row, *zip(*runs, strict=True)):
            rows.append(row)
            console.print(
                f"{row['problem']:<24}{row['method']:<12}seed {row['seed']:<4}"
                f"{row[f'hypervolume_{BUDGETS[-1]}']:.4f}  {row['proposal_cpu_s']:.3f} s a proposal",
                highlight=False,
            )
    figures: Figures = {"repeats": REPEATS, "beginning": BEGINNING, **figures_of(rows)}
    for name, figure in figures.items():
        console.print(f"{name:<62}{figure:g}", highlight=False)
    return Measured(figures, rows)


def figures_of(rows: Sequence[Row]) -> dict[str, float]:
    """Returns means with standard errors of each problem, budget and method, and of paired differences.

    rows: a row for each problem, method and seed.
    """
    figures: dict[str, float] = {}
    for problem in dict.fromkeys(row["problem"] for row in rows):
        runs = {(row["method"], row["seed"]): row for row in rows if row["problem"] == problem}
        seeds = sorted({seed for _, seed in runs})
        for budget in BUDGETS:
            of = {
                method: np.array([runs[method, seed][f"hypervolume_{budget}"] for seed in seeds])
                for method in METHODS
            }
            for name, values in (of | {f"{OURS}_minus_{OTHER}": of[OURS] - of[OTHER]}).items():
                mean, error = mean_and_error(values)
                figures[f"{problem}.{budget}.{name}"] = round(mean, 5)
                figures[f"{problem}.{budget}.{name}.standard_error"] = round(error, 5)
        for method in METHODS:
            seconds, _ = mean_and_error([runs[method, seed]["proposal_cpu_s"] for seed in seeds])
            figures[f"{problem}.{method}.proposal_cpu_s"] = round(seconds, 4)
    return figures


def _row(problem_name: str, method: str, seed: int) -> dict[str, Any]:
    problem = problem_named(problem_name)
    proposer: Proposer[Any] = (
        searcher("guided", problem.space, EvolutionSettings(population=BEGINNING), seed=seed)
        if method == OURS
        else Bayesian(problem.space, log_nehvi, seed=seed)
    )
    points, seconds = drive(proposer, problem.objectives, BUDGETS[-1], clock=time.process_time)
    volumes = {f"hypervolume_{count}": problem.hypervolume(np.array(points[:count])) for count in BUDGETS}
    return {
        "problem": problem_name,
        "method": method,
        "seed": seed,
        **volumes,
        "proposal_cpu_s": float(np.mean(seconds[BEGINNING:])),
    }


BENCHMARK = Benchmark(
    "botorch",
    "guided against BoTorch's qLogNEHVI",
    compare,
    needs={"botorch": "pip install botorch"},
)
