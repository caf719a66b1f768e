"""A training that is kept in a folder: what is in it, and that every end of it can be gone on from."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from operators.base.errors import DataError, DivergedError, RunError
from operators.base.files import locked
from proxy_train.text.corpus import Corpus
from proxy_train.train import train as trained_alone
from search.config.run import RunConfig
from search.runs import kept_training
from search.runs.export import load
from search.runs.exportable import exportable
from search.runs.kept_training import KeptTraining, train_into
from tests.helpers.small_trainings import without_time
from tests.helpers.validation_loss import validation_scores

FILES = {
    *("architecture.yaml", "curve.jsonl", "model.safetensors", "provenance.json", "README.md"),
    *("scores.json", "state.safetensors", "tokenizer.json", "training.json", "training.lock"),
}


@pytest.fixture
def training(job, tiny_config: RunConfig) -> KeptTraining:
    """16 steps."""
    return KeptTraining("first:0", job.architecture, tiny_config.data, tiny_config.proxy, seed=1)


def with_proxy(training: KeptTraining, **changes: object) -> KeptTraining:
    settings = training.settings.model_copy(update=changes)
    return KeptTraining(training.title, training.architecture, training.data, settings, training.seed)


def killed(to: Path, training: KeptTraining, corpus: Corpus, at: int) -> None:
    def kill(step: int, loss: float) -> None:
        if step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_into(to, training, corpus, device="cpu", on_step=kill)


def results(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "model.safetensors").read_bytes(), (folder / "curve.jsonl").read_bytes()


def test_the_folder_has_the_model_its_curve_and_its_scores(
    training: KeptTraining, corpus: Corpus, tmp_path: Path
) -> None:
    to = tmp_path / "deep" / "kept"
    score = train_into(to, training, corpus, device="cpu")
    assert {file.name for file in to.iterdir()} == FILES
    alone = trained_alone(training.architecture, corpus, training.settings, seed=1)
    assert without_time(score) == without_time(alone.score)
    lines = [json.loads(line) for line in (to / "curve.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": step, "tokens": 64 * step, "loss": loss} for step, loss in enumerate(alone.losses, 1)
    ]
    model, tokenizer = load(to)
    assert validation_scores(model, corpus, training.settings) == pytest.approx(
        (score.loss, score.bits_per_byte)
    )
    assert tokenizer.to_str() == corpus.tokenizer().to_str()
    source = exportable(str(to), None, tmp_path)
    assert source.scores["loss"] == score.loss
    assert source.scores["params"] == sum(weight.numel() for weight in model.parameters())
    assert (source.trained, source.context, source.end) == (True, 32, "<|endoftext|>")


@pytest.mark.parametrize("at", [1, 9, 16])
def test_a_killed_training_ends_the_same_to_the_last_bit(
    training: KeptTraining, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    train_into(tmp_path / "whole", training, corpus, device="cpu")
    monkeypatch.setattr("proxy_train.trainer.CHECKPOINT_SECONDS", 0.0)
    to, steps = tmp_path / "killed", []
    killed(to, training, corpus, at)
    with (to / "curve.jsonl").open("ab") as file:
        file.write(b'{"step": 17, "tok')  # cut by the kill
    assert not (to / "scores.json").exists()
    with pytest.raises(RunError, match=r"killed: has no model\.safetensors"):
        exportable(str(to), None, tmp_path, otherwise="")
    train_into(to, training, corpus, device="cpu", on_step=lambda step, loss: steps.append(step))
    assert steps == list(range(at, 17))  # the checkpoint is that of the step before
    assert results(to) == results(tmp_path / "whole")


def test_the_curve_can_be_read_while_the_training_goes_on(
    training: KeptTraining, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(step: int, loss: float) -> None:
        lines = (tmp_path / "kept" / "curve.jsonl").read_text().splitlines()
        assert json.loads(lines[-1]) == {"step": step, "tokens": 64 * step, "loss": loss}
        assert len(lines) == step

    monkeypatch.setattr("proxy_train.trainer.CHECKPOINT_SECONDS", 0.0)
    killed(tmp_path / "kept", training, corpus, 9)  # whose checkpoint is of the step before
    train_into(tmp_path / "kept", training, corpus, device="cpu", on_step=look)


def test_what_has_ended_is_not_trained_again(
    training: KeptTraining, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = train_into(tmp_path / "kept", training, corpus, device="cpu")
    monkeypatch.setattr(kept_training, "train", None)
    assert train_into(tmp_path / "kept", training, corpus, device="cpu") == score
    for changes, says in (
        ({"tokens": 512}, r"holds a training of 1,024 tokens, expected the same --tokens, got 512"),
        (
            {"tokens": 4096},
            r"got 4,096; `frontrunner train \S+ --tokens N --to NEW` trains its model further",
        ),
        ({"learning_rate": 1e-3}, "holds another training: expected the same proxy, or another --to"),
    ):
        with pytest.raises(RunError, match=says):
            train_into(tmp_path / "kept", with_proxy(training, **changes), corpus, device="cpu")
    (tmp_path / "kept" / "scores.json").write_text("{}")
    with pytest.raises(RunError, match=r"scores\.json: not the scores of a training"):
        train_into(tmp_path / "kept", training, corpus, device="cpu")
    (tmp_path / "kept" / "training.json").write_text("[]")
    with pytest.raises(RunError, match=r"training\.json: not the description of a training"):
        train_into(tmp_path / "kept", training, corpus, device="cpu")


def test_a_folder_of_something_else_is_left_alone(
    training: KeptTraining, corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already, expected a folder that is new, empty, or of this"):
        train_into(tmp_path / "full", training, corpus, device="cpu")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "kept"):
        with pytest.raises(RunError, match="cannot be written: Not a directory"):
            train_into(place, training, corpus, device="cpu")
    (tmp_path / "begun").mkdir()
    for left in ("training.lock", ".training.json.partial"):  # by a kill before anything was described
        (tmp_path / "begun" / left).write_text("")
    train_into(tmp_path / "begun", training, corpus, device="cpu")


def test_two_processes_do_not_train_in_one_folder(
    training: KeptTraining, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_training, "_WAIT_S", 0.0)
    (tmp_path / "kept").mkdir()
    with (
        locked(tmp_path / "kept" / "training.lock"),
        pytest.raises(RunError, match="kept: another process trains there"),
    ):
        train_into(tmp_path / "kept", training, corpus, device="cpu")


def test_a_full_disk_is_one_line_and_costs_nothing_that_was_there(
    training: KeptTraining, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    to = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr(kept_training, "save_file", full)
        with pytest.raises(
            RunError, match=r"model\.safetensors: cannot be written: I/O error: No space left"
        ):
            train_into(to, training, corpus, device="cpu")
    assert not {"scores.json", "model.safetensors"} & {file.name for file in to.iterdir()}
    steps = []
    train_into(to, training, corpus, device="cpu", on_step=lambda step, loss: steps.append(step))
    assert steps == []  # the final state was kept, so that only the writing is made again
    assert (to / "scores.json").is_file()


def test_a_curve_that_cannot_be_written_is_one_line(
    training: KeptTraining, corpus: Corpus, tmp_path: Path
) -> None:
    killed(tmp_path / "kept", training, corpus, 1)
    (tmp_path / "kept" / "curve.jsonl").unlink()
    (tmp_path / "kept" / "curve.jsonl").mkdir()
    with pytest.raises(RunError, match=r"curve\.jsonl: cannot be written: Is a directory"):
        train_into(tmp_path / "kept", training, corpus, device="cpu")


def test_one_that_diverges_leaves_no_model(
    training: KeptTraining, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DivergedError):
        train_into(tmp_path / "kept", with_proxy(training, learning_rate=1e4), corpus, device="cpu")
    assert not (tmp_path / "kept" / "model.safetensors").exists()


def test_a_damaged_checkpoint_is_named(
    training: KeptTraining, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_train.trainer.CHECKPOINT_SECONDS", 0.0)
    killed(tmp_path / "kept", training, corpus, 9)
    (tmp_path / "kept" / "state.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"state\.safetensors: not a whole checkpoint .*; remove it"):
        train_into(tmp_path / "kept", training, corpus, device="cpu")
    (tmp_path / "kept" / "state.safetensors").unlink()
    train_into(tmp_path / "whole", training, corpus, device="cpu")
    train_into(tmp_path / "kept", training, corpus, device="cpu")
    assert results(tmp_path / "kept") == results(tmp_path / "whole")
    assert torch.is_tensor(next(load(tmp_path / "kept")[0].parameters()))
