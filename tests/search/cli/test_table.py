"""`frontrunner table`: from a search space to a table on the CPU, and what held-out models say of it."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError
from profiler.device.device import open_device
from profiler.table import build as table_build
from profiler.table.latency_table import LatencyTable
from profiler.table.parts import Entry, Point, Rest
from search.cli import table as table_cli
from search.config import run as config_module
from search.config.space import SpaceSettings
from search.gates.table import digest_of, members
from search.runs.table_for_space import default_points, held_out, wanted
from search.spaces.free import ArchitectureSpace
from search.spaces.staged import make_space
from search.view.latency_table import entries_table
from tests.conftest import Call

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


@pytest.fixture(autouse=True)
def _little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_build, "_MAX_SECONDS", 0.02)


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(RUN, encoding="utf-8")
    return file


def test_a_space_is_covered_by_few_architectures_and_every_choice_is_in_them(run_file: Path) -> None:
    run = config_module.load(run_file)
    found = members(make_space(run.space, run.data.vocabulary))
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


def skip_if_refused_as_busy(code: int, err: str) -> None:
    """A table is refused, in one line, where other programs load the machine: nothing is left to test."""
    if code == 1 and ("not measured well" in err or "tainted" in err):
        assert err.count("\n") == 1
        pytest.skip(f"this machine is busy: {err}")


@pytest.mark.slow
def test_a_table_is_built_extended_shown_and_validated(
    call: Call, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        table_cli, "console", Console(width=100, highlight=False)
    )  # COLUMNS counts only as it was at the import
    file = tmp_path / "tables" / "table.json"
    code, out, err = call("table", "build", run_file, "--batch", 1, "--table", file)
    skip_if_refused_as_busy(code, err)
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
    code, out, err = call("table", "validate", run_file, "--holdout", 3, "--table", file, "--json")
    skip_if_refused_as_busy(code, err)
    assert code == 0
    found = json.loads(out)
    if any(row["tainted"] for row in found["models"]):
        pytest.skip("this machine is busy: a measurement was tainted and is left out of the accuracy")
    assert set(found["accuracy"]) == {"decode@b1", "decode@b3", "prefill@b1"}
    assert len(found["models"]) == 9
    for row in found["models"]:
        assert Architecture.parse(row["architecture"]).width in (32, 64)
        assert row["measured_ms"] > 0
    errors = [
        abs(row["predicted_ms"] / row["measured_ms"] - 1)
        for row in found["models"]
        if (row["phase"], row["batch"]) == ("decode", 1)
    ]
    assert found["accuracy"]["decode@b1"]["mape"] == pytest.approx(sum(errors) / 3)
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
    for width in (80, 120):
        console = Console(width=width, record=True, file=StringIO())
        console.print(entries_table(entries))
        text = console.export_text()
        assert all(len(line) <= width for line in text.splitlines())
        assert (text.count("prefill"), text.count("c8192")) == (3, 3)  # wrapped at 80 columns, never cut
        assert "gated_deltanet" in text
        assert text.count("12300.0") == 3


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
