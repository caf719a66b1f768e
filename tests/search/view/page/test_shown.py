"""What the page shows, against what the terminal and the ledger say of the same run."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from operators.cost import cost
from operators.vision.vision_language import load_model
from search import pareto
from search.config import run as config_module
from search.evaluation.outcome import Evaluation
from search.objectives import Objective
from search.runs import ledger as ledger_module
from search.runs.frontier import hypervolume_gain, relative_errors, scored
from search.runs.worker_time import searched
from search.searchers.contract import Proposal
from search.view.page.shown import shown
from search.view.tables import run_frame
from tests.search.view.page.conftest import LONG, read


def run_of(value, name="long"):
    return next(run for run in value["runs"] if run["name"] == name)


def test_columns_are_those_of_the_frame(value, long):
    columns, table = run_of(value)["candidates"], run_frame(long.ledger.config, long.entries, None, ())
    assert columns["number"] == table.column("id")
    for name in ("architecture", "width", "depth", "parents"):
        assert columns[name] == table.column(name)
    for name in ("status", "reason", "origin", "loads_in"):
        assert [columns["tables"]["text"][place] for place in columns[name]] == table.column(name)
    assert list(columns["metrics"]) == [metric["name"] for metric in run_of(value)["metrics"]]
    for name, figures in columns["metrics"].items():
        for ours, right in zip(figures, table.column(name), strict=True):
            assert (ours is None) == (right is None)
            assert ours is None or ours == pytest.approx(right, rel=1e-6)
    assert all(isinstance(params, int) for params in columns["metrics"]["params"])
    tainted = [row["id"] for row in table.rows if row["tainted"]]
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
        assert members == {entry.number for entry in scored(before, objectives).frontier()}


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
        for entry, (right,) in zip(candidates.entries, candidates.errors, strict=True):
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


def kept(path, config, evaluated):
    """A run of these (architecture, evaluation) pairs."""
    path.mkdir()
    ledger = ledger_module.create(path / "ledger.db", config, started="now")
    for number, (architecture, evaluation) in enumerate(evaluated):
        ledger.propose(Proposal(number, architecture, (), "random"), {})
        ledger.begin(number, "here")
        if evaluation is not None:
            ledger.record(number, evaluation)
    ledger.close()
    return read(path)


def test_models_that_see_have_their_parts(tmp_path):
    model = load_model(Path("lfm2-vl-450m"))
    metrics = {"answer_accuracy": 0.5, "answer_loss": 1.0, "ttft_ms@b1": 3.0, "params": 4.5e8}
    evaluation = Evaluation(status="ok", metrics=metrics, seed=0)
    source = kept(tmp_path / "seeing", config_module.load(Path("quick_vision")), [(model, evaluation)])
    (run,) = shown([source])["runs"]
    columns = run["candidates"]
    parts = columns["tables"]["parts"][columns["parts"][0]]
    assert [part[0] for part in parts] == ["tower", "projector", "language"]
    assert columns["architecture"] == [model.shorthand]
    assert (columns["width"], columns["depth"]) == ([model.language.width], [model.language.depth])
    assert columns["tables"]["text"][columns["loads"][0]] == []
    assert run["kinds"][0]["dominators"] == [[0, None]]


def test_each_kind_of_device_has_a_frontier(tmp_path, long):
    data = {**long.ledger.config.model_dump(mode="json"), "device_kind": ["H100", "A100"], "constraints": []}
    data["objectives"] = ["loss", "decode_ms@b1/H100"]
    figures = ((3.0, 1.0, 9.0), (2.0, 2.0, 1.0), (4.0, 3.0, 8.0))
    evaluated = [
        (
            entry.architecture,
            Evaluation(
                status="ok",
                metrics={"loss": loss, "decode_ms@b1/H100": h100, "decode_ms@b1/A100": a100},
                seed=0,
            ),
        )
        for entry, (loss, h100, a100) in zip(long.entries, figures, strict=False)
    ]
    (run,) = shown([kept(tmp_path / "kinds", config_module.parse(data, where="test"), evaluated)])["runs"]
    assert {each["kind"]: each["dominators"] for each in run["kinds"]} == {
        "H100": [[0, None], [1, None], [2, 0]],
        "A100": [[0, 1], [1, None], [2, 1]],
    }
    assert {metric["name"]: metric["kind"] for metric in run["metrics"]}["decode_ms@b1/A100"] == "A100"


def test_what_is_under_way_and_what_is_not_evaluated(tmp_path, long):
    pairs = [(long.entries[0].architecture, long.entries[0].evaluation), (long.entries[1].architecture, None)]
    source = kept(tmp_path / "going", long.ledger.config, pairs)
    with source.folder.driving():
        (run,) = shown([source])["runs"]
    assert [(each["number"], each["place"]) for each in run["under_way"]] == [(1, "here")]
    text = run["candidates"]["tables"]["text"]
    assert [text[place] for place in run["candidates"]["status"]] == ["ok", "unfinished"]
    assert run["candidates"]["order"] == [0, None]
    (rested,) = shown([source])["runs"]
    assert (rested["under_way"], rested["driven"]) == ([], False)
    empty = shown([kept(tmp_path / "empty", long.ledger.config, [])])
    assert (empty["runs"][0]["candidates"]["number"], empty["courses"][0]["hypervolume"]) == ([], [])
