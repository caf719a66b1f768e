"""Benchmark: time and memory of driving a search of ten thousand candidates.

Evaluations cost nothing here: their scores are made up, in the space of configs/h100_small.yaml. What is
timed is the searcher that is resumed from them, its next proposals, and the comparisons that find the
frontier and the candidates to train again. A proposal that was chosen among many children (screened) takes
most time.

    frontrunner bench scale
"""

import resource
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from search import pareto
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.problems import made_up_scores, screened_space
from search.benchmarks.tables import print_figures
from search.config import run as config_module
from search.searchers.guided import SCREENED
from search.searchers.registry import searcher

EVALUATIONS = 10_000
# Proposals that are timed: a few fits come due among so many.
ASKED = 500
# Relative errors of made-up scores, as measurements and trainings have them.
ERROR = 0.01


def scale(device: str, console: Console) -> Measured:
    """Seconds and milliseconds at EVALUATIONS evaluations, and the most memory that the process had."""
    config = config_module.load(Path("h100_small"))
    space, objectives = screened_space(config), len(config.objectives)
    source = searcher("evolution", space, config.evolution, seed=1)
    history = []
    for _ in range(EVALUATIONS):
        proposal = source.ask()
        history.append((proposal, made_up_scores(proposal.candidate)[:objectives]))
        source.tell(proposal.number, history[-1][1])
    began = time.perf_counter()
    guided = searcher("guided", space, config.evolution, seed=0)
    for proposal, _ in history:
        guided.restore(proposal)
    for proposal, scores in history:
        guided.tell(proposal.number, scores)
    resumed, took, screened = time.perf_counter() - began, [], []
    for _ in range(ASKED):
        began = time.perf_counter()
        proposal = guided.ask()
        guided.tell(proposal.number, made_up_scores(proposal.candidate)[:objectives])
        took.append(1e3 * (time.perf_counter() - began))
        screened.append(proposal.origin.startswith(SCREENED))
    points = np.array([scores for _, scores in history])
    errors = ERROR * np.abs(points) * np.random.default_rng(0).uniform(0.5, 1.5, points.shape)
    began = time.perf_counter()
    kept = int(pareto.nondominated(points, errors).sum())
    compared = time.perf_counter()
    pareto.doubts(points, errors)
    figures: Figures = {
        "evaluations": EVALUATIONS,
        "resume_s": round(resumed, 2),
        "ask_tell_ms": round(float(np.mean(took)), 2),
        # The others are plain children of evolution, and their share is the search's own choice.
        "screened": sum(screened),
        "screened_ms": round(
            float(np.mean([ms for ms, each in zip(took, screened, strict=True) if each] or [0])), 2
        ),
        "ask_tell_p90_ms": round(float(np.quantile(took, 0.9)), 2),
        "ask_tell_largest_ms": round(max(took), 2),
        "frontier": kept,
        "frontier_s": round(compared - began, 3),
        "doubts_s": round(time.perf_counter() - compared, 3),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print_figures(console, figures)
    return Measured(figures, {"ask_tell_ms": took})


BENCHMARK = Benchmark("scale", "time and memory of driving a search of ten thousand candidates", scale)
