"""`import frontrunner`: the page's example, its results against the commands', parts of other packages."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

import frontrunner
from operators.base import plugins
from operators.base.errors import ArchitectureError, ConfigError, DeviceError, RunError
from search.config.run import RunConfig
from tests.fixtures import Call
from tests.helpers.made_up_profile import measure_on_made_up_device

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parent.parent / "docs" / "python-api.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def made(tiny_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> frontrunner.Run:
    """A run made through the API, on a device whose times are made up."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        measure_on_made_up_device(patch)
        return frontrunner.search(tiny_config, name="first", results=results, executor="inline")


def test_the_page_runs(text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    measure_on_made_up_device(monkeypatch)
    shutil.copytree(text_folder, "texts")
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(block, names)  # noqa: S102 - the page's own code
    best, model = names["best"], frontrunner.load("winner")[0]
    assert isinstance(best, frontrunner.Candidate)
    assert sum(weight.numel() for weight in model.parameters()) == best.scores["params"]


def test_models_that_see_are_profiled_and_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[Any, int]] = []

    def profile_each(titled: Any, settings: Any, **_: object) -> list[Any]:
        measured.extend((model, settings.images) for model in titled)
        return []

    monkeypatch.setattr(frontrunner, "profile_each", profile_each)
    seeing = frontrunner.architecture("smolvlm-256m")
    assert isinstance(seeing, frontrunner.VisionLanguage)
    frontrunner.profile("smolvlm-256m", seeing, "tiny-hybrid", images=2)
    assert measured == [
        (("smolvlm-256m", seeing), 2),
        ((seeing.name, seeing), 2),
        (("tiny-hybrid", frontrunner.architecture("tiny-hybrid")), 2),
    ]
    with pytest.raises(ArchitectureError, match=r"^smolvlm-256m: a vision-language model, expected a lang"):
        frontrunner.compare("tiny-hybrid", "smolvlm-256m")


def test_what_commands_refuse_is_refused_before_anything_is_done(
    made: frontrunner.Run, tiny_config: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^rounds: expected at least 3, got 2$"):
        frontrunner.compare("tiny-hybrid", "tiny-hybrid", rounds=2)
    with pytest.raises(ConfigError, match=r"^executor: expected inline or ray, got 'foo'$"):
        frontrunner.search(tiny_config, results=tmp_path, executor="foo")
    with pytest.raises(ConfigError, match=r"^executor: expected inline or ray, got 'foo'$"):
        frontrunner.resume(made.path, executor="foo")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"^tokens: expected at least 1, got 0$"):
        frontrunner.generate(f"{made.path}:0", "the", tokens=0)
    with pytest.raises(ConfigError, match=r"^objectives: expected a list of texts, got 'loss'$"):
        made.frontier(objectives="loss")
    with pytest.raises(ConfigError, match=r"^where: expected a list of texts, got 'params <= 1'$"):
        made.candidates(where="params <= 1")
    with pytest.raises(ConfigError, match=r"^objectives: expected at least one metric, got none$"):
        made.frontier(objectives=[])
    with pytest.raises(ConfigError, match=r"^engines: expected a list of texts, got 'llama.cpp'$"):
        frontrunner.profile("tiny-hybrid", engines="llama.cpp")
    with pytest.raises(ConfigError, match=r"^data: expected a list of texts, got 'texts'$"):
        frontrunner.train(f"{made.path}:0", tmp_path / "kept", data="texts")
    with pytest.raises(ConfigError, match=r"^seed: expected at least 0, got -1$"):
        frontrunner.train(f"{made.path}:0", tmp_path / "kept", seed=-1)
    with pytest.raises(ConfigError, match=r"^against: expected a list of texts, got 'llama-3.2-1b'$"):
        frontrunner.promote(made.path, tokens=10**6, against="llama-3.2-1b")
    with pytest.raises(ConfigError, match=r"^top: expected at least 1, got 0$"):
        frontrunner.promote(made.path, tokens=10**6, top=0)
    with pytest.raises(ConfigError, match=r"^config: expected keys, a file or a shipped name, got list$"):
        frontrunner.search([], results=tmp_path)  # type: ignore[arg-type] # as a program without types may
    with pytest.raises(ConfigError, match=r"^address ray://a: expected executor ray, got inline$"):
        frontrunner.search(tiny_config, results=tmp_path, executor="inline", address="ray://a")
    with pytest.raises(DeviceError, match=r"^unknown device 'tpu'"):
        made.candidate(0).model(device="tpu")
    assert not list(tmp_path.iterdir())


def test_a_run_is_what_the_commands_show(made: frontrunner.Run, call: Call) -> None:
    for frame, arguments in ((made.candidates(), ["--all"]), (made.frontier(), [])):
        code, out, err = call("frontier", made.path, "--json", *arguments)
        assert code == 0, err
        shown = {row["id"]: row for row in json.loads(out)}
        assert list(frame.columns) == list(next(iter(shown.values())))
        assert [shown[row["id"]]["loss"] for row in frame.to_dict("records")] == frame["loss"].tolist()
        assert len(frame) == len(shown)
    front = made.frontier(where=["params <= 20000"])
    assert front["params"].max() <= 20_000 < made.candidates()["params"].max()
    assert len(made.frontier(objectives=["params"])) == 1
    with pytest.raises(ConfigError, match="objectives: expected each metric once, got loss 2 times"):
        made.frontier(objectives=["loss", "loss"])


def test_a_candidate_is_what_show_shows(made: frontrunner.Run, call: Call) -> None:
    number = int(made.frontier()["id"].iloc[0])
    candidate = made.candidate(number)
    shown = json.loads(call("show", made.path, number, "--json")[1])
    assert candidate.architecture.model_dump(mode="json") == shown["architecture"]
    assert candidate.scores == shown["evaluation"]["metrics"]
    assert candidate.curve.to_numpy().tolist() == shown["evaluation"]["proxy"]["curve"]
    assert (candidate.origin, list(candidate.parents)) == (
        shown["provenance"]["origin"],
        shown["provenance"]["parents"],
    )
    model, tokenizer = candidate.model()
    ids = torch.tensor([tokenizer.encode("the people of these states").ids])
    assert model(ids).shape == (1, ids.shape[1], candidate.architecture.vocabulary)


def test_names_of_runs_and_models_mean_what_they_mean_to_the_commands(made: frontrunner.Run) -> None:
    results = made.path.parent
    assert frontrunner.open_run("first", results=results) == made == frontrunner.open_run(made.path)
    assert frontrunner.architecture("first:0", results=results) == made.candidate(0).architecture
    assert frontrunner.architecture("llama-3.2-1b").depth == 32
    before = made.candidates()
    assert frontrunner.resume("first", results=results, executor="inline").candidates().equals(before)
    with pytest.raises(RunError, match="unknown run 'second'"):
        frontrunner.resume("second", results=results)
    with pytest.raises(ConfigError, match="config: candidates: expected at least 1, got 0"):
        frontrunner.search({"candidates": 0}, results=results)
    assert [path.name for path in results.iterdir()] == ["first"]


OTHERS = """
from operators.library import relu2
from frontrunner import CandidateMetric, Operator, Searcher
from dataclasses import replace

OPERATOR = replace(relu2.OPERATOR, symbol="own")
COST = CandidateMetric(lambda architecture, metrics: metrics["loss"] * architecture.depth, "nats", False, "")

class Backwards(Searcher):
    def __init__(self, space, settings, *, seed):
        super().__init__(space, seed=seed)
        self.settings = settings
    def _propose(self, rng):
        proposal = self._random_or_exhausted(rng)
        return replace(proposal, origin="backwards")
"""
ENTRY_POINTS = """
[frontrunner.operators]
own_relu = others:OPERATOR
[frontrunner.objectives]
loss_by_depth2 = others:COST
[frontrunner.searchers]
backwards = others:Backwards
"""
SCRIPT = """
import json, sys, frontrunner
config = json.loads(sys.argv[1])
run = frontrunner.search(config, name="r", results=sys.argv[2], executor="inline")
frame = run.candidates()
rows = json.loads(frame.to_json(orient="records"))
for row in rows:
    row["used"] = sorted({layer.operator for layer in run.candidate(row["id"]).architecture.layers})
print(json.dumps(rows))
"""


def package(folder: Path, name: str, code: str, entry_points: str) -> Path:
    """A folder for sys.path with an installed distribution of one module."""
    (folder / f"{name}-1.2.dist-info").mkdir(parents=True)
    (folder / f"{name}-1.2.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n"
    )
    (folder / f"{name}-1.2.dist-info" / "entry_points.txt").write_text(dedent(entry_points))
    (folder / f"{name}.py").write_text(code)
    return folder


def test_a_search_uses_operator_objective_and_searcher_of_another_package(
    tiny_config: RunConfig, tmp_path: Path
) -> None:
    """In a process of its own, whose profiling worker is one more: both find the package by its metadata."""
    site = package(tmp_path / "site", "others", OTHERS, ENTRY_POINTS)
    config = tiny_config.model_dump(mode="json")
    config["space"]["operators"] = ["attention", "own_relu"]
    config |= {
        "candidates": 3,
        "objectives": ["loss_by_depth2", "params"],
        "constraints": ["loss_by_depth2 <= 1e6"],
    }
    config["searcher"]["name"] = "backwards"
    paths = os.pathsep.join([str(site), str(PAGE.parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(config), str(tmp_path / "results")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["origin"] for row in rows} == {"backwards"}
    assert any("own_relu" in row["used"] for row in rows)
    for row in rows:
        assert row["status"] == "ok", row["reason"]
        assert row["loss_by_depth2"] == pytest.approx(row["loss"] * row["depth"])


def operators_of_others() -> list[frontrunner.Operator]:
    """Read anew, whatever was read before."""
    points = plugins.found.__wrapped__("frontrunner.operators", ("attention",)).values()
    return [plugins.load(point, frontrunner.Operator) for point in points]


@pytest.mark.parametrize(
    ("entry_points", "says"),
    [
        (
            "attention = broken:x",
            "broken 1.2: entry point frontrunner.operators: attention = broken:x: attention is",
        ),
        ("Own-Op = broken:x", "broken 1.2: .*expected a name of small letters"),
        ("twice = broken:x", r"(broken|again) 1.2: .*: (broken|again) 1.2 has that name as well"),
        (
            "missing = broken:nothing",
            "broken 1.2: .*missing = broken:nothing: cannot be loaded: AttributeError: ",
        ),
        (
            "absent = nowhere:x",
            "broken 1.2: .*cannot be loaded: ModuleNotFoundError: No module named 'nowhere'",
        ),
        ("number = broken:x", "broken 1.2: .*expected an Operator, got an int"),
    ],
)
def test_a_bad_entry_point_is_one_line_that_names_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry_points: str, says: str
) -> None:
    group = f"[frontrunner.operators]\n{entry_points}\n"
    folders = [package(tmp_path / "a", "broken", "x = 3\n", group)]
    if entry_points.startswith("twice"):
        folders.append(package(tmp_path / "b", "again", "x = 3\n", group))
    for folder in folders:
        monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match=says) as caught:
        operators_of_others()
    assert "\n" not in str(caught.value)
