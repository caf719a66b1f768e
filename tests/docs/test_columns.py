"""docs/columns.md against the code: metrics, statuses and marks."""

import ast
import inspect
import textwrap
from typing import get_args

from search.evaluation.outcome import Status
from search.objectives import METRICS
from search.runs.status import standing
from search.view.tables import MARK, SPREAD, frame
from tests.docs.pages import ROOT, rows, section

TEXT = (ROOT / "docs" / "columns.md").read_text(encoding="utf-8")


def test_every_metric_has_its_unit_direction_and_meaning():
    assert {name.strip("`"): rest for name, *rest in rows(section(TEXT, "Metrics"))} == {
        name: [metric.unit, "more" if metric.maximize else "less", metric.description]
        for name, metric in METRICS.items()
    }


def test_every_status_is_told_and_no_other():
    told = [status.strip("`") for status, _ in rows(section(TEXT, "Statuses"))]
    assert told == [*get_args(Status), "unfinished"]


def test_the_mark_of_tainted_figures_is_the_one_that_tables_print():
    (cell,) = [cell for cell, meaning in rows(section(TEXT, "Marks")) if meaning.startswith("tainted: ")]
    assert cell == f"`{MARK}` behind a figure"


def test_columns_are_those_of_the_table_in_its_order():
    told = [column.strip("`") for column, *_ in rows(section(TEXT, "Columns of a candidate"))]
    assert [column for column in told if column != f"METRIC{SPREAD}"] == list(frame([], [], []).columns)


def test_every_line_of_status_is_told():
    told = {name.strip("` ") for cell, *_ in rows(section(TEXT, "`status`")) for name in cell.split(",")}
    (returned,) = [
        node.value
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(standing))))
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict)
    ]
    assert told == {key.value for key in returned.keys if isinstance(key, ast.Constant)}
