"""The comparison with BoTorch, without BoTorch: its figures by hand, and its budget."""

import numpy as np
import pytest

from search.benchmarks.library import botorch as bench_botorch
from search.benchmarks.problems import Problem
from search.spaces.encoding import Dimension, IntegerSpace, Vector


def row(method: str, seed: int, volumes: tuple[float, float], seconds: float) -> dict[str, object]:
    return {
        "problem": "p",
        "method": method,
        "seed": seed,
        "hypervolume_50": volumes[0],
        "hypervolume_80": volumes[1],
        "proposal_cpu_s": seconds,
    }


def test_figures_are_means_and_paired_differences() -> None:
    rows = [
        row("guided", 0, (0.5, 0.9), 0.1),
        row("qlognehvi", 1, (0.4, 0.8), 3.0),  # pairs are made by seed, in whatever order rows come
        row("guided", 1, (0.7, 0.9), 0.3),
        row("qlognehvi", 0, (0.4, 0.6), 1.0),
    ]
    # Of two values the standard error is half of their distance.
    assert bench_botorch.figures_of(rows) == pytest.approx(
        {
            "p.50.guided": 0.6,
            "p.50.guided.standard_error": 0.1,
            "p.50.qlognehvi": 0.4,
            "p.50.qlognehvi.standard_error": 0.0,
            "p.50.guided_minus_qlognehvi": 0.2,
            "p.50.guided_minus_qlognehvi.standard_error": 0.1,
            "p.80.guided": 0.9,
            "p.80.guided.standard_error": 0.0,
            "p.80.qlognehvi": 0.7,
            "p.80.qlognehvi.standard_error": 0.1,
            "p.80.guided_minus_qlognehvi": 0.2,
            "p.80.guided_minus_qlognehvi.standard_error": 0.1,
            "p.guided.proposal_cpu_s": 0.2,
            "p.qlognehvi.proposal_cpu_s": 2.0,
        }
    )


@pytest.mark.parametrize("method", bench_botorch.METHODS)
def test_a_run_evaluates_as_many_members_as_the_budget(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[Vector] = []

    def objectives(member: Vector) -> tuple[float, float]:
        evaluated.append(member)
        return float(member[0]), float(9 - member[0] + member[1])

    space = IntegerSpace({"a": Dimension(10), "b": Dimension(10)})
    # Best is the hypervolume of costs (0, 0), which no member has.
    problem = Problem("p", space, objectives, np.array([10.0, 19.0]), best=190.0)
    monkeypatch.setattr(bench_botorch, "problem_named", {"p": problem}.__getitem__)
    monkeypatch.setattr(bench_botorch, "BUDGETS", (2, 30))
    monkeypatch.setattr(bench_botorch, "log_nehvi", lambda rows, costs, seed: lambda features: features[:, 0])
    found = bench_botorch._row("p", method, 0)
    assert len(evaluated) == len(set(evaluated)) == 30
    # The space's seeds come first: costs of (0, 9) and (9, 9) have 10 · 10 from the reference, and 1 · 10
    # inside of it.
    assert evaluated[:2] == [(0, 0), (9, 9)]
    assert found["hypervolume_2"] == pytest.approx(100 / 190)
    assert found["hypervolume_2"] < found["hypervolume_30"] <= 1
    assert (found["problem"], found["method"], found["seed"]) == ("p", method, 0)
    assert found["proposal_cpu_s"] > 0
