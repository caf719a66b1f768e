"""Ctrl-C in the terminal, and what is left to go on with."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.runs import run
from tests.helpers.made_up_profile import measure_on_made_up_device


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_resume_finishes(call, tiny_config, tmp_path, monkeypatch):
    path = tmp_path / "long.yaml"
    # Neither objective is a time: no candidate is measured again because the machine was busy. Each trains
    # for a second or so: on a busy machine the rest would else be done before the signal comes.
    changes = {
        "candidates": 7,
        "objectives": ("loss", "params"),
        "proxy": tiny_config.proxy.model_copy(update={"tokens": 4096}),
    }
    path.write_text(tiny_config.model_copy(update=changes).to_yaml())
    command = [Path(sys.executable).parent / "frontrunner", "search", path, "--name", "long"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("2/7 done"):
            break
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    lines += process.stdout.readlines()
    assert process.wait() == 130, "".join(lines)
    assert time.monotonic() - asked < 15
    assert "go on with `frontrunner resume long`" in "".join(lines)
    assert "Traceback" not in "".join(lines)
    before = json.loads(call("frontier", "long", "--all", "--json")[1])
    assert sum(row["status"] == "ok" for row in before) >= 2
    measure_on_made_up_device(monkeypatch)
    assert call("resume", "long", "--executor", "inline")[0] == 0
    after = {row["id"]: row for row in json.loads(call("frontier", "long", "--all", "--json")[1])}
    assert len(after) == 7
    for row in before:
        if row["status"] == "ok":
            assert after[row["id"]]["loss"] == row["loss"]
            assert after[row["id"]]["decode_ms@b1"] == row["decode_ms@b1"]


def test_ctrl_c_while_the_text_is_prepared_leaves_no_run(call, tiny_config, tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "prepare_run", interrupted)
    path = tmp_path / "run.yaml"
    path.write_text(tiny_config.to_yaml())
    code, _, said = call("search", path, "--name", "early")
    assert code == 130
    assert said.strip().split("\n")[-1] == (
        "interrupted before the run began: the same command continues from here"
    )
    assert not Path("results/early").exists()
