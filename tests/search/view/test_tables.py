"""Frontiers, tables, JSON and plots of entries that are written by hand."""

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError
from profiler.metrics import Metric
from search.cli.options import print_json
from search.evaluation.figures import digits, exact_value, formatted, percent, scaled, with_unit
from search.evaluation.outcome import Evaluation
from search.objectives import Constraint, Objective
from search.runs.entry import Again, Entry
from search.runs.folder import RunFolder
from search.runs.frontier import scored
from search.view import candidate as details
from search.view import tables
from search.view.frame import csv_text, records, sorted_by
from search.view.frontier_plot import plot_format, plot_frontier

LOSS, PARAMS, FAST = (
    Objective("loss", False),
    Objective("params", False),
    Objective("decode_tokens_per_s@b1", True),
)
ARCHITECTURE = Architecture.from_shorthand("a f", width=64, vocabulary=300)
REASON = "drift: the anchor model changed by 30.0%, expected at most 10%"


class Tainted(Evaluation):
    """Whose decode time is not to be trusted, without a profile."""

    def tainted(self) -> dict[str, str]:
        return {"decode_ms@b1": REASON}

    def errors(self) -> dict[str, float]:
        return {"decode_ms@b1": 0.02}


def entry(number: int, *, status: str = "ok", kind: type[Evaluation] = Evaluation, **metrics: float) -> Entry:
    named = {name.replace("_at_", "@"): value for name, value in metrics.items()}
    evaluation = kind(status=status, metrics=named, seed=0)
    return Entry(number, ARCHITECTURE, (2, 7, 18), "random", evaluation, order=number)


# By hand: 0 has the lowest loss of all, 1 of those with at most 150 parameters, 2 is dominated by 1.
ENTRIES = (entry(0, loss=1.0, params=200), entry(1, loss=2.0, params=100), entry(2, loss=3.0, params=150))
SMALL = Constraint("params", "<=", 150)


@pytest.mark.parametrize(
    ("objectives", "where", "expected"),
    [
        ((LOSS,), (), {0}),
        ((LOSS,), (SMALL,), {1}),
        ((LOSS,), (SMALL, Constraint("loss", ">", 2)), {2}),
        ((LOSS, PARAMS), (), {0, 1}),
        ((LOSS, PARAMS), (Constraint("params", ">", 100),), {0, 2}),
        ((LOSS,), (Constraint("params", "<", 100),), set()),
        ((LOSS,), (Constraint("decode_ms@b1", "<", 100),), set()),
    ],
)
def test_the_frontier_is_of_those_that_qualify(
    objectives: tuple[Objective, ...], where: tuple[Constraint, ...], expected: set[int]
) -> None:
    assert {found.number for found in scored(ENTRIES, objectives).frontier(where)} == expected
    table = tables.frame(ENTRIES, objectives, ("loss", "params"), where=where)
    assert {row["id"] for row in table.rows if row["frontier"]} == expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ((Constraint("params", "<", 99.5),), "no candidate meets params < 99.5: the nearest, 1, has 100"),
        ((Constraint("decode_ms@b1", "<", 1),), "no candidate has decode_ms@b1"),
        (
            (Constraint("params", "<=", 100), Constraint("loss", "<=", 1)),
            "params <= 100 and loss <= 1 together",
        ),
    ],
)
def test_a_filter_that_nobody_meets_says_why(where: tuple[Constraint, ...], expected: str) -> None:
    assert expected in tables.why_none(ENTRIES, where)


def test_what_is_not_compared_is_counted() -> None:
    others = (
        entry(3, status="infeasible", loss=0.1, params=1),
        entry(4, status="stopped", params=1),
        entry(5, params=1),
        Entry(6, ARCHITECTURE, (), "random"),
    )
    said = tables.left_out((*ENTRIES, *others), (LOSS, PARAMS))
    assert said.startswith("not compared: ")
    for part in ("1 infeasible", "1 stopped", "1 without loss", "1 unfinished"):
        assert part in said
    assert not tables.left_out(ENTRIES, (LOSS, PARAMS))
    assert {found.number for found in scored((*ENTRIES, *others), (LOSS, PARAMS)).frontier()} == {0, 1}


def test_bounds_are_written_so_that_a_value_differs_from_them() -> None:
    constraint = Constraint("params", "<=", 1_192_511)
    assert str(constraint) == "params <= 1192511"
    assert constraint.broken_by({"params": 1_192_512.0}) == "params is 1192512, expected <= 1192511"


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("column", ["status", "reason", "parents", "decode_ms@b1", "loss", "frontier"])
def test_any_column_sorts_and_what_is_missing_is_last(column: str, descending: bool) -> None:
    entries = (*ENTRIES, Entry(3, ARCHITECTURE, (), "random"))
    table = tables.frame(entries, (LOSS,), ("loss", "params", "decode_ms@b1"))
    found = sorted_by(table, column, descending=descending)
    assert sorted(found.column("id")) == [0, 1, 2, 3]
    if column == "loss":
        assert found.column("id") == ([2, 1, 0, 3] if descending else [0, 1, 2, 3])


def test_json_has_integers_lists_and_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    entries = (
        entry(0, params=1192512.0),
        entry(1, loss=2.0),
        Entry(2, ARCHITECTURE, (), "r"),
    )
    rows = records(tables.frame(entries, (LOSS,), ("loss", "params")))
    print_json({"rows": rows, "more": (float("nan"), float("-inf"), 0.5)})
    text = capsys.readouterr().out
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert '"params": 1192512,' in text
    assert [row["parents"] for row in found["rows"]] == [[2, 7, 18], [2, 7, 18], []]
    assert [row["loss"] for row in found["rows"]] == [None, 2.0, None]
    assert [row["params"] for row in found["rows"]] == [1192512, None, None]
    assert found["more"] == [None, None, 0.5]


def test_the_frontier_says_where_each_candidate_loads_in_every_form() -> None:
    table = tables.frame(ENTRIES, (LOSS,), ("loss", "params"))
    expected = "transformers (LlamaForCausalLM), llama.cpp (llama), vllm, sglang"
    assert {row["loads_in"] for row in records(table)} == {expected}
    assert csv_text(table).count(f'"{expected}"') == len(ENTRIES)
    assert "loads_in" in tables.columns_for(table, (LOSS,))
    assert tables.markdown(table, ["loads_in"], ENTRIES).splitlines()[-1] == (
        "| transformers, llama.cpp, vllm, sglang |"
    )


def test_csv_and_markdown_keep_text_in_its_cell() -> None:
    bad = Entry(
        0, ARCHITECTURE, (1, 2), "random", Evaluation(status="crashed", reason="=1+1, a|b\nc", seed=0)
    )
    table = tables.frame((bad,), (LOSS,), ("loss",))
    (row,) = csv.DictReader(io.StringIO(csv_text(table)))
    assert row["reason"] == "'=1+1, a|b\nc"
    assert row["parents"] == "1 2"
    text = tables.markdown(table, ["id", "reason"], (bad,))
    assert text.splitlines()[-1] == "| 0 | =1+1, a\\|b c |"


def test_a_tainted_figure_is_marked_wherever_it_is_shown() -> None:
    bad = entry(0, kind=Tainted, loss=2.0, decode_ms_at_b1=0.557)
    good = entry(1, loss=1.0, decode_ms_at_b1=0.6)
    objectives = (LOSS, Objective("decode_ms@b1", False))
    table = tables.frame((bad, good), objectives, ("loss", "decode_ms@b1"))
    shown = tables.candidates_sheet(table, tables.columns_for(table, objectives), (bad, good), title="")
    assert shown.rows[0][:3] == ("0", "2.000", "0.5570! ± 2%")
    assert shown.rows[1][:3] == ("1", "1.000", "0.6000")
    assert shown.notes == ("! tainted, not to be trusted: drift (0)",)
    first, second = records(table)
    assert first["tainted"] == [REASON]
    assert second["tainted"] == []
    assert first["decode_ms@b1_spread"] == 0.02
    assert REASON in csv_text(table)
    assert "0.5570!" in tables.markdown(table, ["id", "decode_ms@b1"], (bad, good))
    without = tables.candidates_sheet(table, ["id", "loss"], (bad, good), title="")
    assert not without.notes  # the loss has nothing to do with the clock


def test_show_gives_both_evaluations_and_their_mean(tmp_path: Path) -> None:
    def one(seed: int, ms: float) -> Evaluation:
        return Evaluation(status="ok", metrics={"decode_ms@b1": ms, "params": 5.0}, seed=seed)

    twice = Entry(3, ARCHITECTURE, (), "random", one(0, 2.589)).with_again(
        Again(attempts=(), evaluation=one(9, 0.833))
    )
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True)
    details.print_candidate(console, RunFolder(tmp_path), twice)
    lines = console.export_text().splitlines()
    assert lines[3:7] == [
        "loads in transformers: LlamaForCausalLM",
        "loads in llama.cpp: llama",
        "listed by vllm 0.33, not tried: LlamaForCausalLM",
        "listed by sglang 0.5.23, not tried: LlamaForCausalLM",
    ]
    line = next(line for line in lines if line.startswith("decode_ms@b1"))
    assert line.split() == [
        "decode_ms@b1",
        "1.711",
        "2.589",
        "0.8330",
        "±",
        "51%",
        "ms",
    ]  # (2.589 + 0.833) / 2


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("loss", 3.87, "3.870"),
        ("loss", -0.0, "0.000"),
        ("loss", float("nan"), ""),
        ("params", 999_999, "1M"),
        ("params", 1_192_512.0, "1.19M"),
        ("param_bytes", 2_492_928, "2.49 MB"),
        ("state_bytes@b16.c64", 0.0, "0 B"),
        ("achieved_bytes_per_s@b1", 9.52e8, "952 MB/s"),
        ("parents", [2, 7], "2, 7"),
        ("width", 64, "64"),
    ],
)
def test_figures_for_people(name: str, value: object, expected: str) -> None:
    assert formatted(name, value) == expected


def test_more_figures() -> None:
    assert [percent(share) for share in (0.0, 0.0052, 0.02, 0.123, 1.5)] == [
        "0%",
        "0.52%",
        "2%",
        "12%",
        "150%",
    ]
    assert [digits(value) for value in (1234.5, 1.2345e7, 0.00012345)] == ["1234", "1.234e+07", "0.0001234"]
    assert scaled(5e15) == ("5000", "T")
    assert isinstance(exact_value("kv_bytes@b1", 5.0), int)
    assert isinstance(exact_value("decode_ms@b1", 5.0), float)


@pytest.mark.parametrize(
    ("name", "unit", "header"),
    [
        ("loss@t20000", "nats/token", "loss@t20000 [nats/token]"),
        ("warm_up_s", "s", "warm_up_s"),
        ("losses", "s", "losses [s]"),
        ("decode_ms@b1", "ms", "decode_ms@b1"),
        ("energy_j_per_token", "J/token", "energy_j_per_token"),
        ("loss_times_ms", "nats ms", "loss_times_ms [nats ms]"),
        ("params", "parameters", "params"),
        ("state_bytes", "bytes", "state_bytes"),
        ("perplexity", "", "perplexity"),
    ],
)
def test_a_header_has_the_unit_that_neither_name_nor_cells_have(
    name: str, unit: str, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = Metric(unit, False, "architecture", "")
    monkeypatch.setattr("search.evaluation.figures.metric_named", lambda base: metric)
    assert with_unit(name) == header


@pytest.mark.parametrize(
    ("name", "magic"), [("x.png", b"\x89PNG"), ("x.pdf", b"%PDF"), ("x.svg", b"<?xml"), ("X.PNG", b"\x89PNG")]
)
def test_a_plot_has_the_format_of_its_ending(tmp_path: Path, name: str, magic: bytes) -> None:
    plot_frontier(ENTRIES, (LOSS, PARAMS), tmp_path / name, title="t", first=16)
    assert (tmp_path / name).read_bytes().startswith(magic)


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.png.gz"])
def test_other_endings_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a file that ends in \.png, \.pdf or \.svg"):
        plot_format(Path(name))


def labels_of(path: Path) -> str:
    return path.read_text()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_plot_says_what_it_draws(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from search.view.frontier_plot import plt

    monkeypatch.setitem(plt.rcParams, "svg.fonttype", "none")  # letters stay letters, to be read here
    entries = [
        entry(
            number,
            loss=3.0 - number,
            params=100 + number,
            decode_tokens_per_s_at_b1=9.0 + number,
            perplexity=2.0,
        )
        for number in range(3)
    ]
    objectives = (LOSS, PARAMS, FAST, Objective("perplexity", False))[:count]
    plot_frontier(entries, objectives, tmp_path / "x.svg", title="t", first=16)
    text = labels_of(tmp_path / "x.svg")
    assert ("evaluation number" in text) == (count < 3)
    assert ("decode_tokens_per_s" in text) == (count >= 3)
    assert ("params [parameters]" in text) == (count >= 2)
    assert ("not drawn: perplexity" in text) == (count == 4)
    assert "first 16" not in text


def test_a_picture_of_one_candidate_can_be_drawn(tmp_path: Path) -> None:
    plot_frontier(ENTRIES[:1], (LOSS, FAST)[:1], tmp_path / "x.png", title="t", first=1)
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 500
