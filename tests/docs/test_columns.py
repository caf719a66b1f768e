"""docs/columns.md against the code: metrics, statuses and marks."""

from typing import get_args

from search.evaluation.outcome import Status
from search.objectives import METRICS
from search.view.tables import MARK
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
