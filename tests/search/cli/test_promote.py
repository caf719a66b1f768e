"""`train --to` and `promote` on the command line, and through the Python API."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import frontrunner
from search.runs import kept_training
from search.runs.export import load
from tests.fixtures import Call
from tests.helpers.made_up_profile import measure_on_made_up_device


@pytest.fixture(autouse=True)
def _made_up_device(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_on_made_up_device(monkeypatch)


@pytest.fixture(scope="module")
def made(tiny_config: frontrunner.RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two candidates with weights."""
    results = tmp_path_factory.mktemp("made")
    config = tiny_config.model_copy(update={"candidates": 2, "keep_weights": "all"})
    with pytest.MonkeyPatch.context() as patch:
        measure_on_made_up_device(patch)
        return frontrunner.search(config, name="first", results=results, executor="inline").path


@pytest.fixture
def first(made: Path, call: Call, tmp_path: Path) -> Call:
    """Runs a command where a run `first` is."""
    shutil.copytree(made, tmp_path / "results" / "first")
    return call


def refused(result: tuple[int, str, str], says: str) -> None:
    code, out, err = result
    assert code == 1, (out, err)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err


def test_a_model_is_trained_further_and_kept(first: Call) -> None:
    code, out, err = first("train", "first:0", "--tokens", 2048, "--to", "kept")
    assert (code, err) == (0, "")
    assert "first:0: 32 steps from its weights" in out
    assert "step 30/32  training loss" in out
    assert "kept in kept: `frontrunner generate kept TEXT` writes with it" in out
    score = json.loads(first("train", "first:0", "--tokens", 2048, "--to", "kept", "--json")[1])
    assert (score["steps"], score["folder"]) == (32, "kept")
    assert load(Path("kept"))[0].architecture == frontrunner.architecture("first:0")
    assert first("generate", "kept", "the people", "--tokens", 4)[0] == 0
    assert first("export", "kept", "--format", "huggingface-code", "--to", "winner")[0] == 0
    card = Path("winner/README.md").read_text()
    assert "- `first:0`, trained on 2,048 tokens from trained weights; seed 0." in card
    assert "- Candidate 0 of run first" in card
    assert "first:0" not in first("train", "kept", "--tokens", 640, "--to", "kept2", "--json")[1]
    refused(first("train", "first:0", "--tokens", 640, "--to", "kept"), "holds a training of 2,048 tokens")
    assert json.loads(Path("kept2/training.json").read_text())["batches_before"] == 16 + 32


def test_an_architecture_is_trained_from_random_weights(first: Call, config: Path) -> None:
    Path("own.yaml").write_text("width: 16\nvocabulary: 300\nlayers: [r]\n")
    code, out, _ = first("train", "own.yaml", "--config", config, "--to", "kept")
    assert code == 0
    assert "own.yaml: 16 steps from random weights" in out
    assert first("export", "kept", "--format", "huggingface-code", "--to", "winner")[0] == 0
    card = Path("winner/README.md").read_text()
    assert "- `own.yaml`, trained on 1,024 tokens from random weights; seed 0." in card
    assert "Candidate" not in card


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--fresh",), "--fresh: expected --to FOLDER with it"),
        (("--data", "a.txt"), "--data: expected --to FOLDER with it"),
        (("--to", "kept", "--tasks", "copy"), "--tasks: expected no --to with it, got --to kept"),
        (("--to", "kept", "--checkpoint", "c"), "--checkpoint: expected no --to with it, got --to kept"),
        (("--to", "kept", "--tokens", "3"), "tokens: expected at least one batch of 64"),
        (("--to", "kept", "--data", "nothing.txt"), "nothing.txt"),
        (("--to", "kept", "--device", "abacus"), "unknown device 'abacus'"),
        (("--to", "results"), "results: exists already, expected a folder that is new, empty, or of this"),
    ],
)
def test_what_cannot_be_trained_is_one_line(first: Call, arguments: tuple[str, ...], says: str) -> None:
    refused(first("train", "first:0", *arguments), says)
    assert not Path("kept").exists()


def test_ctrl_c_says_how_to_go_on(first: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kept_training, "train", interrupted)
        code, _, err = first("train", "first:0", "--to", "kept")
    assert (code, err) == (130, "interrupted: the same command goes on from kept\n")
    assert first("train", "first:0", "--to", "kept")[0] == 0


KILLED = """
import os, signal
import proxy_train.trainer
from search.cli.app import main
from search.runs import kept_training
add = kept_training._Curve.add
def kill(curve, step, loss):
    if step == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    add(curve, step, loss)
kept_training._Curve.add, proxy_train.trainer.CHECKPOINT_SECONDS = kill, 0.0
main()
"""


@pytest.mark.slow
def test_a_killed_process_is_gone_on_from_to_the_last_bit(first: Call) -> None:
    arguments = ["train", "first:0", "--tokens", "3200", "--to", "killed"]
    process = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL
    assert not Path("killed/scores.json").exists()
    assert Path("killed/state.safetensors").exists()
    assert first(*arguments)[0] == 0
    assert first(*arguments[:-1], "whole")[0] == 0
    for file in ("model.safetensors", "curve.jsonl"):
        assert (Path("killed") / file).read_bytes() == (Path("whole") / file).read_bytes()


def test_winners_are_promoted_and_exported(first: Call) -> None:
    arguments = ("--against", "tiny-hybrid", "llama-3.2-1b", "--tokens", 1024, "--seeds", 2)
    code, out, err = first("promote", "first", 0, *arguments)
    assert (code, err) == (0, "")
    assert "run first, 1,024 tokens, 2 seeds" in out
    assert "export        frontrunner export results/first/promoted/0-1024-seed0 --format huggingface" in out
    shown = json.loads(first("promote", "first", "--show", "--json")[1])
    assert [one["rival"] for one in shown["members"]] == ["", "tiny-hybrid", "llama-3.2-1b"]
    assert {one["difference"]["seeds"] for one in shown["comparisons"]} == {2}
    assert json.loads(first("promote", "first", "0", *arguments, "--json")[1]) == shown
    model, _ = load(Path(shown["members"][1]["folders"]["1"]))
    assert sum(weight.numel() for weight in model.parameters()) == shown["members"][1]["params"]
    assert first("promote", "first", "--show")[1].splitlines()[0] == "run first, 1,024 tokens, 2 seeds"
    found = frontrunner.promote(
        "first", tokens=1024, seeds=2, candidates=[0], against=["tiny-hybrid", "llama-3.2-1b"]
    )
    assert [one.verdict for one in found.comparisons] == [one["verdict"] for one in shown["comparisons"]]
    # The same training by `train` ends with the same loss.
    alone = frontrunner.train("first:0", "alone", tokens=1024, seed=1, fresh=True)
    assert alone.score.loss == shown["members"][0]["losses"]["1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--tokens: expected the tokens that each training reads, as in --tokens 5e6, got none"),
        (("first-one", "--tokens", "1e4"), "candidate 'first-one': expected an id"),
        (("7", "--tokens", "1e4"), "run first has no candidate 7: expected 0 to 1"),
        (("--tokens", "10"), "--tokens: expected at least the search's own 1,024, got 10"),
        (("--show",), "run first has no promotion yet"),
        (("--show", "--name", "other"), "run first has no promotion yet"),
        (("--tokens", "1e4", "--against", "abacus"), "abacus: neither a file nor a shipped architecture"),
    ],
)
def test_what_cannot_be_promoted_is_one_line(first: Call, arguments: tuple[str, ...], says: str) -> None:
    refused(first("promote", "first", *arguments), says)
    assert first("promote", "second", "--tokens", "1e4")[2].startswith("error: unknown run 'second'")


def test_a_promotion_that_is_interrupted_goes_on(first: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments = ("promote", "first", "0", "--against", "tiny-hybrid", "--tokens", 1024, "--seeds", 1)
    with monkeypatch.context() as patch:
        patch.setattr(kept_training, "train", interrupted)
        code, out, err = first(*arguments)
    assert (code, err) == (130, "")
    assert "the same command goes on" in out
    assert "one seed has no interval" in first(*arguments)[1]
