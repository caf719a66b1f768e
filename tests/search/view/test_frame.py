"""A frame against pandas, which it stands for."""

import csv
import io
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.view.frame import csv_text, frame_of, records, sorted_by

FIGURES = ("params", "loss", "param_bytes")
NUMBERS = st.one_of(
    st.none(), st.floats(), st.integers(-(2**53), 2**53).map(float), st.sampled_from([1.5, 2.0])
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 99),
            "params": st.one_of(st.none(), st.integers(0, 2**53)),
            "loss": NUMBERS,
            "other": st.one_of(st.none(), st.integers(0, 9)),
            "reason": st.text(alphabet='=a,"\n;| ', max_size=5),
            "parents": st.lists(st.integers(0, 9), max_size=3),
            "frontier": st.booleans(),
        },
        optional={"param_bytes": st.one_of(st.integers(0, 9), st.just(2.5)), "loss_spread": st.floats(0, 1)},
    ),
    max_size=6,
)
COLUMNS = ("id", "params", "loss", "param_bytes", "other", "loss_spread", "reason", "parents", "frontier")


def with_pandas(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in FIGURES:
        values = [value for value in table[name] if pd.notna(value)]
        if name != "loss" and values and all(float(value).is_integer() for value in values):
            table[name] = table[name].astype("Int64")
    return table


def plain(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.astype(object).where(table.notna(), None).to_dict(orient="records")


def typed(rows: list[dict[str, Any]]) -> list[dict[str, tuple[type, Any]]]:
    """Values with their types, as 1 is not 1.0 in JSON."""
    return [{name: (type(value), value) for name, value in row.items()} for row in rows]


@given(ROWS)
@settings(deadline=None, max_examples=25)
def test_values_are_those_of_a_pandas_frame(rows: list[dict[str, Any]]) -> None:
    found, right = frame_of(rows, COLUMNS, FIGURES), with_pandas(rows)
    assert typed([dict(row) for row in found.rows]) == typed(plain(right))
    assert typed(plain(found.pandas())) == typed(plain(right))
    known = [name for name in COLUMNS if any(row.get(name) is not None for row in found.rows)]
    assert found.pandas()[known].dtypes.tolist() == right[known].dtypes.tolist()


@given(ROWS, st.sampled_from(COLUMNS), st.booleans())
@settings(deadline=None, max_examples=25)
def test_rows_are_sorted_as_pandas_sorts_them(
    rows: list[dict[str, Any]], column: str, descending: bool
) -> None:
    found = sorted_by(frame_of(rows, COLUMNS, FIGURES), column, descending=descending)
    right = with_pandas(rows).sort_values(column, ascending=not descending, kind="stable", na_position="last")
    assert [dict(row) for row in found.rows] == plain(right)


@given(ROWS)
@settings(deadline=None, max_examples=25)
def test_figures_in_csv_have_the_digits_that_pandas_gives_them(rows: list[dict[str, Any]]) -> None:
    names = ("id", "params", "loss", "param_bytes", "other", "loss_spread", "frontier")
    text = csv_text(frame_of(rows, names, FIGURES))
    assert text == with_pandas(rows)[list(names)].to_csv(index=False, lineterminator="\n")


def test_json_has_no_infinity() -> None:
    table = frame_of([{"loss": float("inf")}, {"loss": 0.5}], ("loss",), ("loss",))
    assert records(table) == [{"loss": None}, {"loss": 0.5}]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "a\n=b"])
def test_text_in_csv_is_no_formula(text: str) -> None:
    _, (cell,) = csv.reader(io.StringIO(csv_text(frame_of([{"reason": text}], ("reason",)))))
    assert cell == (f"'{text}" if text[0] in "=+-@" else text)


def test_the_frontier_of_no_rows_selects_no_rows() -> None:
    table = frame_of([], ("id", "frontier")).pandas()
    assert table[table["frontier"]].columns.tolist() == ["id", "frontier"]
