import csv
import io
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from operators import Architecture, registry
from profiler.profile import REPEATABILITY
from proxy_train.task_settings import TaskSettings
from proxy_train.tasks import train_task
from search.cli import app as cli
from search.config import run as config_module
from search.runs import ledger as ledger_module
from search.runs import run
from search.runs.export import load
from search.searchers.contract import Proposal
from tests.helpers.made_up_profile import decode_ms, measure_on_made_up_device
from tests.helpers.validation_loss import validation_scores


@pytest.fixture(autouse=True)
def _made_up_device(monkeypatch):
    """What this process would have measured is made up, so that every figure is known."""
    measure_on_made_up_device(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Keeps the finished run, which every test gets a copy of."""
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def first(call, config, tmp_path, finished):
    """A finished run called `first` -> what the search printed."""
    if (finished / "printed").exists():
        shutil.copytree(finished / "results", tmp_path / "results")
        return (finished / "printed").read_text()
    code, out, err = call("search", config, "--name", "first", "--executor", "inline")
    assert (code, err) == (0, "")
    shutil.copytree(tmp_path / "results", finished / "results")
    (finished / "printed").write_text(out)
    return out


def refused(result, says):
    """One line on standard error that holds `says`, nothing of a traceback, and a non-zero exit code."""
    code, out, err = result
    assert code == 1, (out, err)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err
    assert "Traceback" not in err


def test_a_name_of_nothing_is_no_name(call, config):
    refused(call("search", config, "--name", ""), "run name ''")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_kernels_for_a_gpu_that_is_not_there_are_one_error(call, config):
    refused(call("warm", config), "device cuda:0: no GPU can be used here")


def test_search_ends_with_the_table_the_plot_and_what_to_do_next(first, tmp_path):
    assert "6/6 done, 0 failed" in first
    assert "frontier of first" in first
    assert "frontrunner export first" in first
    with Image.open(tmp_path / "results" / "first" / "frontier.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400


def beats(one, other):
    """Whether a row dominates another. All losses differ, so that the error of a time leaves no doubt."""
    return one["loss"] < other["loss"] and one["decode_ms@b1"] <= other["decode_ms@b1"]


def test_every_command_reads_the_run(call, first, tmp_path):
    code, out, _ = call("status", "first", "--json")
    status = json.loads(out)
    assert (code, status["state"], status["evaluated"], status["unfinished"]) == (0, "complete", 6, 0)

    assert status["hypervolume"] >= status["hypervolume_initial"] > 0
    rows = json.loads(call("frontier", "first", "--json")[1])
    everything = json.loads(call("frontier", "first", "--all", "--json")[1])
    assert len({row["loss"] for row in everything}) == len(everything) == 6
    assert [row["decode_ms@b1_spread"] for row in everything] == [REPEATABILITY["cpu"]] * 6
    on_frontier = {row["id"] for row in everything if not any(beats(other, row) for other in everything)}
    assert {row["id"] for row in rows} == {row["id"] for row in everything if row["frontier"]} == on_frontier
    assert 0 < len(rows) < 6
    assert [row["loss"] for row in rows] == sorted(row["loss"] for row in rows)

    table = list(csv.DictReader(io.StringIO(call("frontier", "first", "--all", "--format", "csv")[1])))
    assert [int(row["id"]) for row in table] == [row["id"] for row in everything]
    assert call("frontier", "first", "--format", "markdown")[1].startswith(
        "| id | loss [nats/token] | decode_ms@b1 |"
    )

    shown = json.loads(call("show", "first", 0, "--json")[1])
    expected_ms = decode_ms(Architecture.parse(shown["architecture"]), 1, 16)
    assert shown["evaluation"]["profile"]["points"][0]["decode"]["samples_ms"] == [expected_ms] * 10
    assert next(row["decode_ms@b1"] for row in everything if row["id"] == 0) == expected_ms
    assert shown["provenance"]["config"]["candidates"] == 6
    page = call("show", "first", 0)[1]
    assert "candidate 0 of first" in page
    assert "conditions: anchor 0.5 ms before, 0.5 ms after (drift 0.0%, at most 50%)" in page
    found = json.loads(call("profile", "first:0", "--batch", 1, "--context", 8, "--json")[1])
    assert (found[0]["architecture"], found[0]["params"]) == (
        "first:0",
        next(row["params"] for row in everything if row["id"] == 0),
    )


def test_the_frontier_can_be_asked_for_other_objectives_filtered_and_sorted(call, first, tmp_path):
    only = json.loads(call("frontier", "first", "--objectives", "params", "--json")[1])
    everything = json.loads(call("frontier", "first", "--all", "--json")[1])
    assert {row["params"] for row in only} == {min(row["params"] for row in everything)}
    bound = sorted(row["params"] for row in everything)[2]
    few = json.loads(
        call(
            "frontier",
            "first",
            "--all",
            "--where",
            f"params <= {bound}",
            "--sort",
            "params",
            "--descending",
            "--json",
        )[1]
    )
    expected = sorted((row["params"] for row in everything if row["params"] <= bound), reverse=True)
    assert [row["params"] for row in few] == expected
    code, _, err = call("frontier", "first", "--plot", tmp_path / "front.png")
    assert code == 0
    assert str(tmp_path / "front.png") in err
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_an_exported_candidate_builds_runs_and_has_the_loss_it_claims(
    call, first, tmp_path, corpus, tiny_config
):
    best = json.loads(call("frontier", "first", "--json")[1])[0]
    code, out, _ = call("export", "first", best["id"], "--to", tmp_path / "winner")
    assert code == 0
    assert "README.md" in out
    model, tokenizer = load(tmp_path / "winner")
    text = tokenizer.decode(model.generate(tokenizer.encode("the people").ids, 5))
    assert text.startswith("the people")
    assert validation_scores(model, corpus, tiny_config.proxy)[0] == pytest.approx(best["loss"], abs=1e-6)
    names = (f"first:{best['id']}", f"results/first:{best['id']}", "winner")
    scores = [json.loads(call("evaluate", name, tiny_config.data.source, "--json")[1]) for name in names]
    assert all({**score, "model": ""} == {**scores[0], "model": ""} for score in scores)
    assert (scores[0]["window"], scores[0]["documents"]) == (32, 8)
    provenance = json.loads((tmp_path / "winner" / "provenance.json").read_text())
    assert provenance["run"] == "first"
    assert provenance["digest"] == model.architecture.digest()
    assert json.loads((tmp_path / "winner" / "scores.json").read_text())["metrics"]["loss"] == best["loss"]
    refused(
        call("export", "first", best["id"], "--to", tmp_path / "winner"),
        "expected a folder that is new or empty",
    )


def test_a_candidate_without_weights_is_exported_without_them(call, first, tmp_path):
    best = json.loads(call("frontier", "first", "--json")[1])[0]["id"]
    (tmp_path / "results" / "first" / "weights" / f"{best:05d}.safetensors").unlink()
    refused(call("export", f"first:{best}", "--to", "bare"), "--without-weights exports all but them")
    refused(call("generate", f"first:{best}", "a"), "has no weights, they are not in ")
    code, _, _ = call("export", f"results/first:{best}", "--without-weights", "--to", "bare")
    assert code == 0
    assert sorted(file.name for file in (tmp_path / "bare").iterdir()) == [
        "README.md",
        "architecture.yaml",
        "provenance.json",
        "scores.json",
        "tokenizer.json",
    ]
    shown = json.loads(call("show", "results/first", best, "--json")[1])
    assert Architecture.load(tmp_path / "bare") == Architecture.parse(shown["architecture"])
    assert f"frontrunner export first {best} --without-weights --to winner" in call("resume", "first")[1]


def test_weights_that_were_cut_are_not_exported_as_if_whole(call, first, tmp_path):
    weights = tmp_path / "results" / "first" / "weights" / "00000.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(
        call("export", "first", 0, "--to", tmp_path / "winner"),
        "00000.safetensors: cannot be exported, the file is damaged: ",
    )
    assert not (tmp_path / "winner").exists()


def test_a_changed_text_is_noticed(call, tiny_config, tmp_path, text_folder):
    own = tmp_path / "own"
    shutil.copytree(text_folder, own)
    data = tiny_config.data.model_copy(update={"source": "own"})
    config = tiny_config.model_copy(update={"data": data, "candidates": 1})
    (tmp_path / "own.yaml").write_text(config.to_yaml())
    folder = run.start(
        config_module.load(tmp_path / "own.yaml"),
        results=tmp_path / "results",
        name="own",
    )
    (own / "more.txt").write_text("some more words " * 50)
    refused(call("resume", "own", "--executor", "inline"), "is not what it was when the run began")
    (own / "more.txt").unlink()
    assert call("resume", "own", "--executor", "inline")[0] == 0
    before = folder.tokenizer.read_text()
    (own / "more.txt").write_text("some more words " * 50)
    assert call("export", "own", 0, "--to", tmp_path / "winner")[0] == 0
    assert (tmp_path / "winner" / "tokenizer.json").read_text() == before


def test_greedy_generation_is_the_likeliest_token_each_time(call, first, tmp_path):
    call("export", "first", 0, "--to", tmp_path / "winner")
    model, tokenizer = load(tmp_path / "winner")
    prompt = tokenizer.encode("of these states").ids
    tokens = model.generate(prompt, 6)
    with torch.inference_mode():
        logits = model(torch.tensor([tokens]))[0]
    assert tokens[len(prompt) :] == logits[len(prompt) - 1 : -1].argmax(-1).tolist()


def test_bad_input_is_one_line_before_any_work(call, config, text_folder, tmp_path):
    data = f"data: {{source: {text_folder}, vocabulary: 300, validation_fraction: 0.2}}"
    refused(call("search", tmp_path / "none.yaml"), "none.yaml: cannot be read")
    refused(call("search", config, "--name", "../out"), "run name '../out'")
    for text, says in (
        ("data: {source: nowhere.txt}", "nowhere.txt"),
        ("proxy: {tokns: 3}", "unknown key tokns"),
        (f"{data}\nconstraints: ['params <= 10']", "no sample of the space meets it"),
        ("device: cuda:7", "cuda:7"),
        ("device: tpu", "unknown device 'tpu'"),
        ("seed: 1\nseed: 2", "key 'seed' is given twice"),
        ("seed: 99999999999999999999999", "seed"),
        ("deadline_s: .inf", "deadline_s"),
        ("candidates: 2024-13-45", "candidates: expected a whole number, got '2024-13-45'"),
        ("data: {source: ~nobody_of_that_name/x}", "nobody_of_that_name"),
        ("profile: {contexts: 1000000000000}", "context"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        refused(call("search", tmp_path / "bad.yaml", "--name", "bad", "--executor", "inline"), says)
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "bad.yaml").write_text(f"data: {{source: {tmp_path / 'short.txt'}, vocabulary: 300}}")
    refused(call("search", tmp_path / "bad.yaml", "--name", "bad", "--executor", "inline"), "short")
    assert not (tmp_path / "results").exists()
    (tmp_path / "file").touch()
    refused(
        call("search", config, "--results", tmp_path / "file", "--name", "x", "--executor", "inline"),
        "is not a folder",
    )


def test_unknown_runs_candidates_and_files(call, first, tmp_path, config):
    refused(call("search", config, "--name", "first", "--executor", "inline"), "run first exists already")
    for command in (("status",), ("frontier",), ("resume",)):
        refused(call(*command, "second"), "unknown run 'second': expected one of those in results: first")
    for command in (("show", "first", 99), ("export", "first", 99, "--to", tmp_path / "x")):
        refused(call(*command), "run first has no candidate 99: expected 0 to 5")
    refused(call("frontier", "first", "--objectives", "speed"), "unknown metric 'speed'")
    refused(call("frontier", "first", "--sort", "speed"), "unknown column 'speed'")
    refused(call("frontier", "first", "--sort", ""), "unknown column ''")
    refused(call("frontier", "first", "--where", "speed"), "as in 'params <= 3e6'")
    refused(call("profile", tmp_path / "none.yaml"), "none.yaml: cannot be read")
    refused(call("profile", "first:99"), "run first has no candidate 99: expected 0 to 5")
    refused(call("profile", "second:0"), "unknown run 'second'")
    refused(
        call("profile", "tiny-hybrid", "--batch", "1,x"),
        "--batch: expected whole numbers of at least 1, as in --batch 1,8,64, got 'x'",
    )
    refused(
        call("profile", "tiny-hybrid", "--energy", "1"),
        "energy_seconds: expected 0 (not measured) or at least 5",
    )
    (tmp_path / "arch.yaml").write_text("{width: 16, vocabulary: 300, layers: a f x}")
    refused(call("profile", tmp_path / "arch.yaml"), "layers.2: unknown operator 'x'")
    refused(call("train", tmp_path / "arch.yaml", "--config", config), "layers.2: unknown operator 'x'")


def test_a_run_without_any_score_yet_is_shown_too(call, tiny_config, tmp_path):
    (tmp_path / "results" / "empty").mkdir(parents=True)
    path = tmp_path / "results" / "empty" / "ledger.db"
    ledger = ledger_module.create(path, tiny_config, started="now")
    for proposals in (0, 1):
        if proposals:
            architecture = Architecture.from_shorthand("a f", width=16, vocabulary=300)
            ledger.propose(Proposal(0, architecture, (), "random"), {"width": 16.0})
        assert json.loads(call("status", "empty", "--json")[1])["unfinished"] == proposals
        assert json.loads(call("frontier", "empty", "--where", "params <= 1", "--json")[1]) == []
        assert len(json.loads(call("frontier", "empty", "--all", "--json")[1])) == proposals
        assert call("frontier", "empty", "--all")[0] == 0
    assert call("show", "empty", 0)[0] == 0
    refused(call("export", "empty", 0, "--to", tmp_path / "x"), "is not evaluated yet")


def test_a_wrong_call_is_code_2_and_shows_usage(call):
    code, _, err = call("frontier")
    assert code == 2
    assert "Usage:" in err


@pytest.mark.parametrize(
    "command", sorted(command.name or command.callback.__name__ for command in cli.app.registered_commands)
)
def test_every_command_has_help_with_an_example(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"Example: frontrunner {command}" in " ".join(out.split())


def test_architectures_of_one_name_have_a_row_each(call, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.yaml").write_text("{width: 32, vocabulary: 300, layers: a f}")
    out = call("profile", "one/x.yaml", "two/x.yaml", "--batch", 1, "--context", 8)[1]
    assert [line.split()[0] for line in out.splitlines() if "x.yaml" in line] == ["one/x.yaml", "two/x.yaml"]


def test_paths_that_cannot_be_written(call, first, tmp_path):
    (tmp_path / "file").touch()
    refused(call("frontier", "first", "--plot", tmp_path / "file" / "x.png"), "cannot be written")
    refused(call("export", "first", 0, "--to", tmp_path / "file" / "x"), "cannot be written")


def test_profile_and_train_work_on_files(call, config, tmp_path):
    for name, layers in (("small", "a f"), ("large", "a f a f a f")):
        (tmp_path / f"{name}.yaml").write_text(f"{{width: 32, vocabulary: 300, layers: {layers}}}")
    found = json.loads(
        call(
            "profile",
            tmp_path / "small.yaml",
            tmp_path / "large.yaml",
            "--batch",
            1,
            2,
            "--context",
            "8,16",
            "--json",
        )[1]
    )
    assert [Path(entry["architecture"]).stem for entry in found] == ["small", "large"]
    assert [[(point["batch"], point["context"]) for point in entry["points"]] for entry in found] == [
        [(1, 8), (2, 8), (1, 16), (2, 16)]
    ] * 2
    small, large = (entry["metrics"]["decode_ms@b2.c16"] for entry in found)
    assert (small, large) == (2 + 49 / 64, 6 + 49 / 64)  # what a step takes on the made-up device
    assert found[1]["ratios"]["decode_ms@b2.c16"] == pytest.approx(large / small)
    assert found[0]["ratios"]["decode_ms@b1"] == 1
    score = json.loads(call("train", tmp_path / "small.yaml", "--config", config, "--json")[1])
    assert score["loss"] == pytest.approx(math.log(score["perplexity"]))
    assert (
        "the unigram entropy of the data is" in call("train", tmp_path / "small.yaml", "--config", config)[1]
    )
    refused(call("train", tmp_path / "small.yaml", "--config", config, "--tokens", 3), "tokens")
    refused(call("train", tmp_path / "small.yaml", "--config", config, "--tasks", "memory"), "tasks: names.0")
    (tmp_path / "other.yaml").write_text("{width: 32, vocabulary: 301, layers: a f}")
    refused(call("train", tmp_path / "other.yaml", "--config", config), "the architecture 301")


TASKS = TaskSettings(names=("recall",), tokens=2_000, batch_size=8, scored_sequences=64)


def test_train_has_the_tasks_of_its_file_or_those_that_are_named(call, tiny_config, tmp_path):
    (tmp_path / "small.yaml").write_text("{width: 32, vocabulary: 300, layers: a f}")
    with_tasks = tmp_path / "tasks.yaml"
    with_tasks.write_text(tiny_config.model_copy(update={"tasks": TASKS}).to_yaml())
    code, out, _ = call(
        "train", tmp_path / "small.yaml", "--config", with_tasks, "--tasks", "copy,noisy_recall"
    )
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines() if ": accuracy" in line] == [
        "copy",
        "noisy_recall",
    ]
    tasks = json.loads(call("train", tmp_path / "small.yaml", "--config", with_tasks, "--json")[1])["tasks"]
    expected = train_task("recall", Architecture.load(tmp_path / "small.yaml"), TASKS, seed=0)
    assert [(task["task"], task["accuracy"]) for task in tasks] == [("recall", expected.accuracy)]


def test_operators_and_doctor_tell_what_is_usable(call):
    rows = json.loads(call("operators", "--json")[1])
    assert {row["operator"] for row in rows} == set(registry.names())
    assert all(row["state"].startswith("usable") for row in rows if row["backend"] == "reference")
    assert "attention" in call("operators")[1]
    found = json.loads(call("doctor", "--json")[1])
    assert (
        found["packages"]["torch"] == torch.__version__.split("+")[0]
        or found["packages"]["torch"] == torch.__version__
    )
    if not torch.cuda.is_available():
        assert any(not entry["usable"] and entry["reason"] for entry in found["devices"])
    assert "torch" in call("doctor")[1]
