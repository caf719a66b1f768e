"""A run of so many candidates that the chart draws some of them."""

import copy

import numpy as np
import pytest

from search.view.page import document
from tests.helpers.chromium import watched
from tests.search.view.page.conftest import LONG

pytestmark = pytest.mark.slow

TIMES = 60  # every candidate of the run
CHART = "document.getElementById('frontier-chart')"
DRAWN = f"{CHART}.data.filter((each) => / ones$|proposals$|tainted/.test(each.name))"
POINTS = f"{DRAWN}.flatMap((each) => each.x.map((x, k) => [x, each.y[k], each.customdata[k][1]]))"


ACROSS = f"{CHART}.layout.xaxis.range"


def wait_for(page, expression):
    """Until it holds; the page's policy forbids playwright's own way of waiting."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def many(run):
    """The run with every candidate TIMES times, each with a figure that is a little different."""
    rng, made = np.random.default_rng(0), copy.deepcopy(run)
    made["candidates"] = {
        name: column * TIMES if isinstance(column, list) else column
        for name, column in made["candidates"].items()
    }
    rows = made["candidates"]
    for name in ("metrics", "error", "spread"):
        rows[name] = {metric: values * TIMES for metric, values in rows[name].items()}
    for name in ("loss", "decode_ms@b1"):
        rows["metrics"][name] = [value and value * rng.uniform(0.8, 1.25) for value in rows["metrics"][name]]
    rows["number"] = rows["order"] = list(range(LONG * TIMES))
    return made


@pytest.fixture(scope="module")
def page(browser, value, tmp_path_factory):
    path = tmp_path_factory.mktemp("many") / "page.html"
    document.write(path, {**value, "runs": [many(value["runs"][0])]}, title="many")
    with watched(browser, viewport={"width": 1280, "height": 900}) as kept:
        kept.page.goto(path.as_uri())
        kept.ready()
        yield kept.page
        assert kept.errors == []


def test_no_point_is_far_from_one_that_is_drawn(page, value):
    run = many(value["runs"][0])["candidates"]
    ok = run["tables"]["text"].index("ok")
    members = set(page.evaluate(f"{CHART}.data.at(-1).text"))
    every = np.array(
        [
            (run["metrics"]["decode_ms@b1"][row], run["metrics"]["loss"][row])
            for row in range(LONG * TIMES)
            if run["status"][row] == ok and row not in members
        ]
    )
    drawn = np.array(page.evaluate(POINTS))
    assert len(drawn) < 1001 < len(every)
    assert f"{len(drawn):,} others of {len(every):,} drawn" in page.locator("#frontier-note").inner_text()
    for x, y, row in drawn:
        assert (x, y) == (run["metrics"]["decode_ms@b1"][int(row)], run["metrics"]["loss"][int(row)])
    size = every.max(axis=0) - every.min(axis=0)
    apart = np.abs(every[:, None] - drawn[None, :, :2]) / size
    assert apart.max(axis=2).min(axis=1).max() < 0.025  # of the chart's width and height


def test_a_zoom_draws_what_lies_there(page):
    before = len(page.evaluate(POINTS))
    page.locator("#frontier-chart").scroll_into_view_if_needed()
    box = page.locator("#frontier-chart .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for _ in range(3):
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(200)
    wait_for(page, f"{POINTS}.length > {before}")
    near = page.evaluate(ACROSS)
    page.focus("#frontier-chart")
    page.keyboard.press("Home")
    wait_for(page, f"{POINTS}.length === {before}")
    wide = page.evaluate(ACROSS)
    assert near[1] - near[0] < wide[1] - wide[0]
