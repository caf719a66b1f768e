"""Tables in terminals of several widths and in pipes: nothing is cut."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from search.view import terminal_tables
from search.view.terminal_tables import Sheet, sheet, show

NAMES = ("id", "loss [nats/token]", "decode_ms@b16", "decode_ms@b1.c32768", "params", "width", "architecture")
ROWS = (
    ("12", "3.885", "0.557! ± 2%", "12.35 ± 0.5%", "1.19M", "128", "a f a f m2 f kda f a f a f m2 f kda f"),
    ("7", "5.012", "0.612 ± 12%", "98.21 ± 0.5%", "69.8k", "64", "a f"),
)


def rendered(shown: Sheet, width: int, *, terminal: bool = True) -> list[str]:
    console = Console(width=width, force_terminal=terminal, color_system=None, file=io.StringIO())
    show(console, shown)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def candidates() -> Sheet:
    return sheet(
        NAMES, ROWS, words=("architecture",), optional=("params", "width"), title="frontier of r: 2 of 9"
    )


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40])
def test_every_figure_and_layer_is_whole_at_every_width(width: int) -> None:
    lines = rendered(candidates(), width)
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    for row in ROWS:
        for figure in row[:4]:
            assert re.search(rf"(?<![\w.]){re.escape(figure)}(?![\w.])", text), figure
        assert text.split().count("kda") >= 2


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_column_that_is_left_out_is_named(width: int) -> None:
    text = "\n".join(rendered(candidates(), width))
    for name, values in (("width", ("128", "64")), ("params", ("1.19M", "69.8k"))):
        shown = all(re.search(rf"\b{value}\b", text) for value in values)
        assert shown or re.search(rf"not shown in {width} columns: .*\b{name}\b", text), name


CELLS = st.text(alphabet="abc  1.é世µ\n\t\x07[]\u0301", max_size=12)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=4), st.sampled_from([12, 30, 300]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_rows_that_need_no_wrapping_are_what_rich_makes_of_them(
    rows: list[tuple[str, ...]], width: int, terminal: bool
) -> None:
    shown = sheet(("id", "why", "so [ms]"), rows, words=("why",), optional=("so [ms]",))
    found = rendered(shown, width, terminal=terminal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal_tables, "_plain", lambda cell: False)
        assert found == rendered(shown, width, terminal=terminal)


def test_a_pipe_has_no_width() -> None:
    title, header, _, *rows = rendered(candidates(), 20, terminal=False)
    assert title == "frontier of r: 2 of 9"
    assert re.split(r"  +", header.strip()) == list(NAMES)
    assert [re.split(r"  +", row.strip()) for row in rows] == [list(row) for row in ROWS]


def test_a_name_without_spaces_is_never_broken() -> None:
    name = "quick-20261127-012618:7"
    columns = ("model", *(f"figure {letter}" for letter in "abcdefgh"))
    lines = rendered(sheet(columns, [(name, *["12.345"] * 8)], words=("model",)), 80)
    assert any(name in line for line in lines)


def test_wide_letters_count_twice() -> None:
    shown = sheet(("名前", "ms"), [("日本語の長い名前 " * 6, "1.5")], words=("名前",))
    assert max(map(cell_len, rendered(shown, 40))) <= 40


def test_brackets_are_text_and_not_markup() -> None:
    text = "\n".join(rendered(sheet(("[bold]x", "y"), [("[red]1[/red]", "[/]")]), 80))
    assert "[bold]x" in text
    assert "[red]1[/red]" in text


def test_a_row_has_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="expected 2 cells"):
        sheet(("a", "b"), [("1",)])
