"""`frontrunner table`: from a search space to a table on the CPU, and what held-out models say of it."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from operators import Architecture, VisionLanguage
from operators.base.errors import ConfigError
from profiler.device.device import Device, open_device
from profiler.table import validate as table_validate
from profiler.table.latency_table import LatencyTable
from profiler.table.parts import Entry, Point, Rest
from search.cli import table as table_cli
from search.config import run as config_module
from search.config.space import SpaceSettings
from search.gates.table import digest_of
from search.runs.table_for_space import default_points, held_out, wanted
from search.spaces.free import ArchitectureSpace
from search.spaces.staged import make_space
from search.view.latency_table import entries_table
from tests.fixtures import Call
from tests.helpers.made_up_device import MadeUpStopwatch, model_ms

RUN = """
data: {vocabulary: 300}
profile: {batch_sizes: [1, 3], contexts: 24}
space:
  operators: [attention, swiglu]
  widths: [32, 64]
  min_depth: 1
  max_depth: 4
  genes: {attention: {head_dim: [16], group: [1], qk_norm: [none], window: [null]}, swiglu: {ratio: [2, 4]}}
  norms: [[rmsnorm, before], [layernorm, before]]
  meta_tokens: [0, 2]
"""

pytestmark = pytest.mark.usefixtures("own_locks")


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(RUN, encoding="utf-8")
    return file


def test_a_space_is_covered_by_few_architectures_and_every_choice_is_in_them(run_file: Path) -> None:
    run = config_module.load(run_file)
    found = make_space(run.space, run.data.vocabulary).covering()
    # a width has one attention and two feed-forward networks, each with two normalizations
    assert [(one.width, one.meta_tokens, one.depth) for one in found] == [
        (32, 0, 6),
        (32, 2, 6),
        (64, 0, 6),
        (64, 2, 6),
    ]
    assert all(len({layer.model_dump_json() for layer in one.layers}) == 6 for one in found)
    assert {one.vocabulary for one in found} == {300}


def test_batches_and_contexts_are_the_runs_unless_given(run_file: Path) -> None:
    own = wanted([str(run_file)], batches=None, contexts=None)
    assert set(own.points) == {Point(phase, batch, 24) for phase in ("decode", "prefill") for batch in (1, 3)}
    given = wanted([str(run_file), "tiny-hybrid"], batches=[2], contexts=[8, 16])
    assert set(given.points) == {
        Point(phase, 2, context) for phase in ("decode", "prefill") for context in (8, 16)
    }
    assert given.architectures[-1] == Architecture.load("tiny-hybrid")


def test_device_and_threads_are_the_runs_unless_given(run_file: Path, tmp_path: Path) -> None:
    def asked(*sources: object, changes: list[str], **given: Any) -> tuple[str, int]:
        found = wanted([*map(str, sources)], batches=[1], contexts=[8], changes=changes, **given)
        return found.device, found.threads

    on_gpu = ["device=cuda:1", "profile.threads=2"]
    assert asked(run_file, changes=on_gpu) == ("cuda:1", 2)
    assert asked(run_file, changes=on_gpu, device="cuda:0", threads=3) == ("cuda:0", 3)
    assert asked("tiny-hybrid", changes=[]) == ("cpu", 1)
    other = tmp_path / "other.yaml"
    other.write_text(f"{RUN}\ndevice: cuda:0\n", encoding="utf-8")
    assert asked(other, "tiny-hybrid", changes=[]) == ("cuda:0", 1)
    with pytest.raises(ConfigError, match=r"^--device: expected one, as the runs have cpu and cuda:0$"):
        asked(run_file, other, changes=[])
    assert asked(run_file, other, changes=[], device="cpu") == ("cpu", 1)


def test_models_that_see_are_wanted_from_the_pictures_on(tmp_path: Path) -> None:
    phases = ("decode", "prefill", "first_token")
    given = wanted(["smolvlm-256m"], batches=[2], contexts=[8])
    assert given.architectures == (VisionLanguage.load("smolvlm-256m"),)
    assert set(given.points) == {Point(phase, 2, 8, 1) for phase in phases}
    own = wanted(["quick_vision"], batches=None, contexts=None, changes=["profile.images=2"])
    assert set(own.points) == {Point(phase, 1, 16, 2) for phase in phases}
    assert all(isinstance(model, VisionLanguage) for model in own.architectures)
    file = tmp_path / "eyes.yaml"
    file.write_text(given.architectures[0].to_yaml(), encoding="utf-8")
    assert wanted([str(file)], batches=[2], contexts=[8]) == given


def test_held_out_models_are_distinct_fit_and_come_from_the_seed(run_file: Path) -> None:
    run, cpu = config_module.load(run_file), open_device("cpu")
    space, points = (
        make_space(run.space, run.data.vocabulary),
        default_points(run.profile, run.parsed_constraints()),
    )
    first, again, other = (held_out(space, 20, seed=seed, points=points, device=cpu) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len({model.digest() for model in first}) == 20
    with pytest.raises(ConfigError, match="none of 1000 random architectures meets"):
        held_out(space, 2, seed=0, points=[Point("decode", 10**9, 24)], device=cpu)
    single = SpaceSettings(
        operators=("attention",),
        widths=(32,),
        min_depth=1,
        max_depth=1,
        genes={"attention": {"head_dim": (16,)}},
    )
    with pytest.raises(ConfigError, match="different architectures in 5000 draws; expected 50"):
        held_out(ArchitectureSpace(single, 300), 50, seed=0, points=points, device=cpu)


class Longer(MadeUpStopwatch):
    """Times whole models of the made-up device: a hundredth longer for each layer than its layers' sum."""

    def __init__(self, model: Architecture, point: Point, device: Device) -> None:
        super().__init__(model, point, device)
        self.ms *= 1 + 0.01 * model.depth


def test_a_table_is_built_extended_shown_and_validated(
    call: Call,
    run_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made_up: type[MadeUpStopwatch],
) -> None:
    monkeypatch.setattr(table_validate, "Stopwatch", Longer)
    monkeypatch.setattr(
        table_cli, "console", Console(width=100, highlight=False)
    )  # COLUMNS counts only as it was at the import
    file = tmp_path / "tables" / "table.json"
    code, out, _ = call("table", "build", run_file, "--batch", 1, "--table", file)
    assert code == 0
    assert "0:00 left" in out
    # At each width: decoding has 2 attention at 12 and 24, whose line serves 26, 4 swiglu and a rest;
    # reading 24 and 26 tokens has 6 and a rest.
    expected = 2 * ((2 * 2 + 4 + 1) + 2 * (6 + 1))
    assert f"{expected} entries, {expected} of them new" in out.replace("\n", "")
    code, out, _ = call("table", "build", run_file, "--batch", 1, "--table", file, "--json")
    assert json.loads(out) == {"table": str(file), "measured": 0, "entries": expected}
    code, out, _ = call("table", "show", "--table", file)
    assert code == 0
    assert "heads=2 kv_heads=2 head_dim=16" in out
    assert "layernorm before" in out
    code, out, _ = call("table", "show", "--table", file, "--json")
    assert len(json.loads(out)["entries"]) == expected
    code, out, _ = call("table", "validate", run_file, "--holdout", 3, "--table", file, "--json")
    assert code == 0
    found = json.loads(out)
    assert set(found["accuracy"]) == {"decode@b1", "decode@b3", "prefill@b1"}
    assert len(found["models"]) == 9
    assert not any(row["tainted"] for row in found["models"])
    for row in found["models"]:
        model = Architecture.parse(row["architecture"])
        assert model.width in (32, 64)
        sum_ms = model_ms(model, Point(row["phase"], row["batch"], 24))
        assert row["predicted_ms"] == pytest.approx(sum_ms)
        assert row["measured_ms"] == pytest.approx(sum_ms * (1 + 0.01 * model.depth))
    depths = [Architecture.parse(row["architecture"]).depth for row in found["models"]]
    assert len(set(depths)) > 1
    for name in found["accuracy"]:
        errors = [
            1 - 1 / (1 + 0.01 * depth)
            for row, depth in zip(found["models"], depths, strict=True)
            if f"{row['phase']}@b{row['batch']}" == name
        ]
        assert found["accuracy"][name]["mape"] == pytest.approx(sum(errors) / 3)
    table, space = LatencyTable.read(file), digest_of(config_module.load(run_file).space)
    assert len(table.entries) > expected  # those of batch 3, which the models held out needed
    run = config_module.load(run_file)
    for point in default_points(run.profile, run.parsed_constraints()):
        noted = table.validation(space, point)
        assert (noted.models, noted.p95) == (3, found["accuracy"][f"{point.phase}@b{point.batch}"]["p95"])
    assert table.validation("another", point) is None


def test_bad_input_is_one_line(call: Call, run_file: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    cases = [
        (("show", "--table", damaged), "damaged"),
        (("show", "--table", tmp_path / "none.json"), "cannot be read"),
        (("show", "--device", "tpu"), "unknown device"),
        (("build", run_file, "--table", damaged), "damaged"),
        (("build", "nonsense"), "nonsense"),
        (("validate", tmp_path / "none.yaml"), "expected the YAML file of a run"),
    ]
    for arguments, said in cases:
        code, out, err = call("table", *arguments)
        assert (code, out) == (1, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert said in err


def test_entries_fit_a_narrow_terminal() -> None:
    layers = Architecture.from_shorthand(
        "a g", width=64, vocabulary=300, genes={"attention": {"qk_norm": "head", "window": 512}}
    ).layers
    rest = Rest(vocabulary=300, tied_embeddings=True)
    entries = [
        Entry(
            phase="prefill",
            batch=64,
            context=8192,
            width=2048,
            rope=True,
            what=what,
            ms=12.3,
            error_ms=0.1,
            rounds=10,
        )
        for what in (*layers, rest)
    ]
    rows_at = {80: 4 + 2 + 2, 120: 3}  # lines of the three entries: where room is short, words wrap
    for width, rows in rows_at.items():
        console = Console(width=width, record=True, file=StringIO())
        console.print(entries_table(entries))
        names, _, *lines = console.export_text().rstrip().splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) == rows
        starts = [names.index(name) for name in ("operator", "shape", " width", "point", " time")]

        def words(column: int, lines: list[str] = lines, starts: list[int] = starts) -> list[str]:
            end = dict(enumerate(starts)).get(column + 1)
            return " ".join(line[starts[column] : end] for line in lines).split()

        assert words(0) == ["attention", "gated_deltanet", "rest"]
        assert words(1) == " ".join(entry.details for entry in entries).split()
        assert words(2) == ["2048"] * 3
        assert words(3) == ["prefill", "b64", "c8192"] * 3
        assert words(4) == ["12300.0", "0.8"] * 3


@pytest.mark.parametrize(
    "batches", [("--batch", 1, 3), ("--batch", 1, "--batch", 3), ("--batch", "1,3"), ("--batch=1", 3)]
)
def test_several_batch_sizes_are_given_in_any_spelling(
    call: Call, run_file: Path, monkeypatch: pytest.MonkeyPatch, batches: tuple[str | int, ...]
) -> None:
    given = {}

    def stop(sources: list[str], **sizes: object) -> None:
        given.update(sizes, sources=sources)
        raise ConfigError("stopped here")

    monkeypatch.setattr("search.runs.table_for_space.wanted", stop)
    code, _, err = call("table", "build", run_file, *batches, "--context", 8, 16)
    assert (code, err) == (1, "error: stopped here\n")
    assert given["sources"] == [str(run_file)]
    assert (given["batches"], given["contexts"]) == ((1, 3), (8, 16))
