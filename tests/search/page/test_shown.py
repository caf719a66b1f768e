"""What the page shows, against what the terminal and the ledger say of the same run."""

import json
import math

import numpy as np
import pytest

from operators.cost import cost
from search import pareto
from search.objectives import Objective
from search.page.shown import shown
from search.runs.frontier import errors, frontier_of, hypervolume_gain, relative_errors, scored
from search.runs.worker_time import searched
from search.view.tables import run_frame
from tests.search.page.conftest import LONG, read


def run_of(value, name="long"):
    return next(run for run in value["runs"] if run["name"] == name)


def test_columns_are_those_of_the_frame(value, long):
    columns, table = run_of(value)["candidates"], run_frame(long.ledger.config, long.entries, None, ())
    assert columns["number"] == table["id"].tolist()
    for name in ("architecture", "width", "depth", "parents"):
        assert columns[name] == table[name].tolist()
    for name in ("status", "reason", "origin", "loads_in"):
        assert [columns["tables"]["text"][place] for place in columns[name]] == table[name].tolist()
    assert list(columns["metrics"]) == [metric["name"] for metric in run_of(value)["metrics"]]
    for name, figures in columns["metrics"].items():
        for ours, right in zip(figures, table[name], strict=True):
            assert (ours is None) == (right is None or right != right)
            assert ours is None or ours == pytest.approx(right, rel=1e-6)
    assert all(isinstance(params, int) for params in columns["metrics"]["params"])
    tainted = [row["id"] for _, row in table.iterrows() if row["tainted"]]
    assert tainted
    assert list(columns["tainted"]) == tainted


def test_dominators_give_the_frontier_after_every_evaluation(value, long):
    objectives = long.ledger.config.parsed_objectives()
    order = {entry.number: entry.order for entry in long.entries}
    (kind,) = run_of(value)["kinds"]
    for count in (1, 10, 33, LONG):
        before = [entry for entry in long.entries if entry.order < count]
        members = {
            number
            for number, by in kind["dominators"]
            if order[number] < count and (by is None or order[by] >= count)
        }
        assert members == {entry.number for entry in frontier_of(before, objectives)}


def test_layers_add_up_to_the_parameters_and_the_state(value, long):
    columns = run_of(value)["candidates"]
    for row, entry in enumerate(long.entries):
        layers = [columns["tables"]["layers"][place] for place in columns["layers"][row]]
        whole = cost(entry.architecture, batch=1, context=columns["tables"]["context"])
        assert [layer["operator"] for layer in layers] == [
            layer.operator for layer in entry.architecture.layers
        ]
        assert sum(layer["params"] for layer in layers) + columns["around"][row] == whole.params
        assert sum(layer["state"] for layer in layers) == whole.state_bytes


def test_errors_are_those_that_frontiers_are_taken_with(long):
    for name in ("decode_ms@b1", "loss", "params"):
        objective = Objective(name, maximize=False)
        candidates = scored(long.entries, [objective])
        relative = relative_errors(long.entries, [name])[name]
        for entry, (right,) in zip(candidates, errors(candidates, [objective]), strict=True):
            if math.isfinite(right):
                assert relative.get(entry.number, 0.0) * entry.evaluation.metrics[name] == pytest.approx(
                    right
                )


def test_courses_of_runs_have_one_scale(value, long, results):
    course, other = value["courses"]
    assert (course["run"], other["run"]) == ("long", "short")
    assert course["hypervolume"] == sorted(course["hypervolume"])
    assert course["evaluations"][-1] <= LONG
    assert course["seconds"][-1] == pytest.approx(searched(long.entries), abs=30)
    alone = shown([long])["courses"][0]
    gain = hypervolume_gain(long.entries, long.ledger.config.parsed_objectives(), first=24)
    assert alone["hypervolume"][-1] == pytest.approx(gain.final)
    points = [
        np.array([[metrics["loss"], metrics["decode_ms@b1"]] for metrics in clean(entries)])
        for entries in (long.entries, read(results / "short").entries)
    ]
    low, high = np.concatenate(points).min(0), np.concatenate(points).max(0)
    for ours, own in zip((course, other), points, strict=True):
        volume = pareto.hypervolume((own - low) / (high - low), [1.1, 1.1])
        assert ours["hypervolume"][-1] == pytest.approx(volume)


def clean(entries):
    """The metrics of candidates that have scores and no tainted figure."""
    return [
        each.evaluation.metrics for each in entries if each.evaluation.status == "ok" and not each.tainted()
    ]


def test_it_is_json_without_numbers_that_json_lacks(value):
    assert json.loads(json.dumps(value, allow_nan=False))["runs"][0]["candidates"]["number"][-1] == LONG - 1


def test_engines_and_commands_are_those_of_the_terminal(value, long):
    columns = run_of(value)["candidates"]
    assert columns["export"][7] == long.folder.command("export", 7)
    weights = columns["tables"]["text"][columns["weights"][7]]
    assert weights.startswith("has no weights, they are not in ")
    assert [row[0].split()[0] for row in columns["tables"]["text"][columns["loads"][7]]] == [
        "transformers",
        "llama.cpp",
        "vllm",
        "sglang",
    ]
