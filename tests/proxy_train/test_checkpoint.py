"""Checkpoints of a proxy run: a killed training goes on to the same end, and a bad file is one line."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from operators.base.errors import DataError
from proxy_train import checkpoint
from proxy_train.text.corpus import Corpus
from proxy_train.train import train
from tests.helpers.small_trainings import SETTINGS, model_of, without_time


@pytest.fixture(scope="module")
def corpus(sentences: Corpus) -> Corpus:
    return sentences


@pytest.mark.parametrize("killed_at", [3, 35, 58])
def test_a_killed_training_ends_the_same_to_the_last_bit(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Kills in the stable part, after the score of a smaller budget, and in the last decay."""
    monkeypatch.setattr("proxy_train.trainer.CHECKPOINT_SECONDS", 0.0)
    settings = SETTINGS.model_copy(update={"schedule": "wsd", "budgets": (2560,), "tokens": 7680})
    expected = train(model_of(), corpus, settings, seed=0)
    file, steps = tmp_path / "new" / "checkpoint", []

    def kill(step: int, loss: float) -> None:
        if step == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model_of(), corpus, settings, seed=0, on_step=kill, checkpoint=file)
    assert [path.name for path in file.parent.iterdir()] == ["checkpoint"]
    resumed = train(
        model_of(), corpus, settings, seed=0, on_step=lambda step, loss: steps.append(step), checkpoint=file
    )
    assert steps == list(range(killed_at, 61))
    assert without_time(resumed.score) == without_time(expected.score)
    assert all(torch.equal(resumed.weights[name], tensor) for name, tensor in expected.weights.items())
    assert list(file.parent.iterdir()) == []


def test_checkpoints_that_cannot_be_used(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_train.trainer.CHECKPOINT_SECONDS", 0.0)
    settings, file = SETTINGS.model_copy(update={"tokens": 640}), tmp_path / "checkpoint"

    def kill(step: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model_of(), corpus, settings, seed=0, on_step=kill, checkpoint=file)
    whole = file.read_bytes()
    with pytest.raises(
        DataError,
        match="a checkpoint of another training: expected the same architecture, seed; name another file",
    ):
        train(model_of("a r"), corpus, settings, seed=1, checkpoint=file)
    with pytest.raises(DataError, match="expected the same settings"):
        train(
            model_of(), corpus, settings.model_copy(update={"learning_rate": 1e-3}), seed=0, checkpoint=file
        )
    for damaged in (whole[: len(whole) // 2], b"", b"junk" * 1000):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"not a whole checkpoint .*; remove it to train from the start"):
            train(model_of(), corpus, settings, seed=0, checkpoint=file)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="the checkpoint cannot be written"):
        train(model_of(), corpus, settings, seed=0, checkpoint=tmp_path / "file" / "checkpoint")


def test_a_full_disk_leaves_the_last_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, identity = tmp_path / "checkpoint", {"seed": 0}
    checkpoint.write(file, {"weight": torch.arange(3.0)}, identity=identity, progress={"losses": [1.5]})

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DataError, match="cannot be written: I/O error: No space left on device"):
        checkpoint.write(file, {"weight": torch.zeros(3)}, identity=identity, progress={"losses": [1.5, 1.4]})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    tensors, progress = checkpoint.read(file, identity=identity)
    assert torch.equal(tensors["weight"], torch.arange(3.0))
    assert progress == {"losses": [1.5]}
