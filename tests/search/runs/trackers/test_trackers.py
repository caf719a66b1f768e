"""Trackers: what they write, read again by the format's specification, and what becomes of one that fails."""

import importlib.util
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from operators.base.errors import ConfigError
from search.config import run as config_module
from search.config.run import RunConfig
from search.runs import run as runs
from search.runs.ledger import open_ledger
from search.runs.progress import TrackerFailed
from search.runs.trackers.contract import Begun, Tracked
from search.runs.trackers.registry import Trackers, require
from tests.fixtures import Call
from tests.helpers.made_up_profile import measure_on_made_up_device

FIRST = Tracked(3, 0, "a f", "ok", {"loss": 2.5, "decode_ms@b1": 0.25}, ((100, 6.0), (200, 5.0)))
SECOND = Tracked(4, 1, "m", "diverged", {"params": 12.0})


def crc32c(data: bytes) -> int:
    """The checksum of RFC 3720, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(file: Path) -> Iterator[bytes]:
    """The records of an event file (TFRecord): length, its checksum, content, its checksum."""
    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        assert struct.unpack_from("<I", data, at + 8) == (masked(data[at : at + 8]),)
        content = data[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length) == (masked(content),)
        yield content
        at += 16 + length


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer: number and value."""

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if not byte & 128:
                return value

    at = 0
    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        elif tag & 7 == 2:
            length = varint()
            yield tag >> 3, message[at : at + length]
            at += length
        else:
            form, size = {1: ("<d", 8), 5: ("<f", 4)}[tag & 7]
            yield tag >> 3, struct.unpack_from(form, message, at)[0]
            at += size


def scalars(folder: Path) -> set[tuple[str, int, float]]:
    """(tag, step, value) of every scalar in a folder's event files; Event: step 2, summary 5."""
    found = set()
    for file in folder.glob("events.*"):
        for record in records(file):
            event = dict(fields(record))
            for _, value in fields(event.get(5, b"")):
                summary = dict(fields(value))  # Summary.Value: tag 1, simple_value 2
                if 2 in summary:
                    found.add((summary[1].decode(), event.get(2, 0), round(summary[2], 6)))
    return found


def told(names: Sequence[str], folder: Path) -> list[tuple[str, str]]:
    """Tells trackers of both candidates, and returns those that failed, each with its reason."""
    failures: list[tuple[str, str]] = []
    trackers = Trackers(
        names, run="first", folder=folder, config={}, on_failure=lambda *both: failures.append(both)
    )
    trackers.evaluated(FIRST)
    trackers.evaluated(SECOND)
    trackers.close()
    return failures


def test_tensorboard_files_hold_scores_and_losses(tmp_path: Path) -> None:
    failures = told(["tensorboard"], tmp_path)
    scores = {("loss", 0, 2.5), ("decode_ms_b1", 0, 0.25), ("params", 1, 12.0)}
    assert scalars(tmp_path / "tensorboard" / "scores") == scores
    losses = {("training_loss", 100, 6.0), ("training_loss", 200, 5.0)}
    assert scalars(tmp_path / "tensorboard" / "candidate-00003") == losses
    assert not (tmp_path / "tensorboard" / "candidate-00004").exists()
    assert failures == []


def test_a_tracker_that_fails_is_left_alone_and_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Faulty:
        def __init__(self, begun: Begun) -> None:
            calls.append(str(begun.folder.relative_to(tmp_path)))

        def evaluated(self, tracked: Tracked) -> None:
            calls.append("evaluated")
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            calls.append("close")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "search.runs.trackers.wandb", SimpleNamespace(open_tracker=Faulty))
    failures = told(["wandb", "tensorboard"], tmp_path)
    assert calls == ["wandb", "evaluated"]
    assert failures == [("wandb", "[Errno 28] No space left on device")]
    assert len(scalars(tmp_path / "tensorboard" / "scores")) == 3


def test_one_that_is_not_installed_is_refused_before_the_search(
    call: Call, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = (
        "trackers: mlflow needs the package mlflow, which is not installed: `pip install mlflow` installs it"
    )
    with pytest.raises(ConfigError, match=said):
        require(["mlflow"])
    code, _, err = call("search", config, "--set", "trackers=[mlflow]", "--executor", "inline")
    assert (code, err) == (1, f"error: {said}\n")
    assert not (tmp_path / "results").exists()
    code, _, err = call("search", config, "--set", "trackers=[tensorbord]")
    assert "trackers.0: expected 'tensorboard', 'wandb' or 'mlflow', got 'tensorbord'" in err


@pytest.mark.slow
def test_a_search_tells_its_trackers(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_on_made_up_device(monkeypatch)
    data = {**tiny_config.model_dump(mode="json"), "trackers": ["tensorboard"], "candidates": 2}
    events: list[object] = []
    folder = runs.start(config_module.parse(data, where="test"), results=tmp_path, name="first")
    runs.drive_to_end(folder, executor="inline", address=None, on_event=events.append)
    place = folder.path / "trackers" / "tensorboard"
    entries = open_ledger(folder.ledger).entries()
    for entry in entries:
        assert entry.evaluation is not None
        loss = round(struct.unpack("<f", struct.pack("<f", entry.evaluation.metrics["loss"]))[0], 6)
        assert ("loss", entry.order, loss) in scalars(place / "scores")
        steps = {step for _, step, _ in scalars(place / f"candidate-{entry.number:05d}")}
        assert steps == {tokens for tokens, _ in entry.evaluation.proxy.curve}
    assert not any(isinstance(event, TrackerFailed) for event in events)


@pytest.mark.slow
def test_mlflow_has_scores_and_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trackers = Trackers(["mlflow"], run="first", folder=tmp_path, config={"seed": 3}, on_failure=_fail)
    trackers.evaluated(FIRST)
    trackers.close()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("frontrunner").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params) == ("first", "FINISHED", {"seed": "3"})
    assert run.data.metrics["decode_ms/b1"] == 0.25
    curve = client.get_metric_history(run.info.run_id, "training_loss/00003")
    assert [(point.step, point.value) for point in curve] == [(100, 6.0), (200, 5.0)]


@pytest.mark.slow
def test_wandb_writes_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    trackers = Trackers(["wandb"], run="first", folder=tmp_path, config={"seed": 3}, on_failure=_fail)
    trackers.evaluated(FIRST)
    trackers.close()
    wandb.teardown()  # waits for the process that writes
    (file,) = (tmp_path / "wandb").rglob("*.wandb")
    content = file.read_bytes()
    assert b"decode_ms@b1" in content
    assert b"training_loss/00003" in content


def _fail(name: str, reason: str) -> None:
    raise AssertionError(f"{name}: {reason}")
