"""The page in a real browser: every interaction, no error, and no request that leaves the machine."""

import csv
import io
import re

import pytest

from search.objectives import Objective
from search.pareto import nondominated
from search.runs.frontier import scored
from search.view.frame import csv_text, sorted_by
from search.view.page import document
from search.view.tables import candidates_sheet, run_frame
from tests.helpers.chromium import cells, watched
from tests.search.view.page.conftest import LONG, SHORT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def opened(browser, value, tmp_path_factory):
    """The file of both runs, opened once for all tests: each leaves it as it was."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    document.write(path, value, title="made up")
    with watched(browser, viewport={"width": 1280, "height": 900}) as kept:
        kept.page.goto(path.as_uri())
        kept.ready()
        yield kept
        assert kept.errors == []
        assert [url for url in kept.requests if not url.startswith(("file:", "blob:", "data:"))] == []


@pytest.fixture
def page(opened):
    yield opened.page
    if opened.page.locator("#candidate").is_visible():
        opened.page.keyboard.press("Escape")


def chart(page, expression):
    """A value of the frontier's chart, of which `it` is the element."""
    return page.evaluate(
        f"(() => {{ const it = document.getElementById('frontier-chart'); return {expression}; }})()"
    )


def members(page):
    """The ids that the chart has as its frontier."""
    return chart(page, "it.data.find((trace) => trace.name?.endsWith('long: frontier')).text")


def test_the_table_has_the_cells_of_the_terminal(page, long):
    table = sorted_by(run_frame(long.ledger.config, long.entries, None, ()), "loss")
    names = ["id", "loss", "decode_ms@b1", "params", "width", "depth", "architecture"]
    right = candidates_sheet(table.head(25), names, long.entries, title="")
    assert [row[1:8] for row in cells(page)] == [list(row) for row in right.rows]
    assert [row[0] == "◆" for row in cells(page)] == table.head(25).column("frontier")
    assert page.locator("#table-count").inner_text() == f"{LONG} candidates of {LONG}, page 1 of 2"
    page.click("#next")
    assert len(cells(page)) == LONG - 25
    assert page.locator("#next").is_disabled()
    page.click("#previous")


def test_headers_sort(page, long):
    page.click("th button[data-column=params]")
    assert page.locator("th:has(button[data-column=params])").get_attribute("aria-sort") == "ascending"
    params = {entry.number: entry.evaluation.metrics["params"] for entry in long.entries}
    assert [int(row[1]) for row in cells(page)] == sorted(
        params, key=lambda number: (params[number], number)
    )[:25]
    page.keyboard.press("Enter")  # the header keeps the focus
    assert page.locator("th:has(button[data-column=params])").get_attribute("aria-sort") == "descending"
    assert int(cells(page)[0][1]) == max(params, key=lambda number: (params[number], -number))
    page.click("th button[data-column=loss]")


def test_conditions_are_those_of_the_terminal(page, long):
    page.fill("#where", "params <= 4e6, loss > 3.5")
    page.click("text=Apply")
    conditions = ["params <= 4e6", "loss > 3.5"]
    table = run_frame(long.ledger.config, long.entries, None, conditions)
    assert 1 < len(table) < LONG
    assert sorted(int(row[1]) for row in cells(page)) == table.column("id")
    assert sorted(members(page)) == [row["id"] for row in table.rows if row["frontier"]]
    with page.expect_download() as download:
        page.click("#csv")
    ours, right = (
        list(csv.DictReader(io.StringIO(text)))
        for text in (download.value.path().read_text(encoding="utf-8"), csv_text(sorted_by(table, "loss")))
    )
    assert list(ours[0]) == list(right[0])
    for mine, theirs in zip(ours, right, strict=True):
        for name in set(mine) - {"frontier", "seconds"}:  # the page keeps the run's own frontier
            if re.fullmatch(r"-?[\d.]+(e-?\d+)?", theirs[name]) and "." in theirs[name]:
                assert float(mine[name]) == pytest.approx(
                    float(theirs[name]), rel=2e-3 if "spread" in name else 1e-6
                )
            else:
                assert mine[name] == theirs[name], name
    page.fill("#where", "")
    page.click("text=Apply")
    assert len(cells(page)) == 25


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "params",
            "constraint 'params': expected a metric, <=, <, >= or >, and a number, as in 'params <= 3e6'",
        ),
        ("params <= 1__0", "constraint 'params <= 1__0': expected"),
        ("paramz < 1", "unknown metric 'paramz': expected one of params, "),
    ],
)
def test_wrong_conditions_say_what_was_expected(page, text, said):
    page.fill("#where", text)
    page.keyboard.press("Enter")
    assert page.locator("#where-wrong").inner_text().startswith(said)
    assert page.locator("#where").get_attribute("aria-invalid") == "true"
    assert len(cells(page)) == 25
    page.fill("#where", "")
    page.keyboard.press("Enter")
    assert page.locator("#where-wrong").inner_text() == ""


def test_any_two_metrics_have_a_frontier_and_a_third_is_colour(page, long):
    page.select_option("#y", "decode_tokens_per_s@b8")
    page.select_option("#x", "peak_memory_bytes@b8")
    page.select_option("#colour", "")
    wanted = [
        Objective("decode_tokens_per_s@b8", maximize=True),
        Objective("peak_memory_bytes@b8", maximize=False),
    ]
    assert sorted(members(page)) == sorted(entry.number for entry in scored(long.entries, wanted).frontier())
    page.select_option("#colour", "loss")
    three = [*wanted, Objective("loss", maximize=False)]
    right = sorted(entry.number for entry in scored(long.entries, three).frontier())
    page.wait_for_timeout(300)
    assert sorted(members(page)) == right
    assert chart(page, "it.data.find((trace) => trace.name?.includes('later')).marker.color.length") > 3
    assert "loss" in page.locator("#frontier-note").inner_text()
    for name, value in (("#y", "loss"), ("#x", "decode_ms@b1"), ("#colour", "evaluation")):
        page.select_option(name, value)


def test_a_difference_within_the_errors_dominates_nothing(page, long):
    names = ("prefill_ms@b8", "decode_ms@b8")
    wanted = [Objective(name, maximize=False) for name in names]
    candidates = scored(long.entries, wanted)
    exact = int(nondominated(candidates.costs).sum())
    right = candidates.frontier()
    assert len(right) > exact  # or the errors would show nothing here
    for field, name in zip(("#y", "#x"), names, strict=True):
        page.select_option(field, name)
    page.select_option("#colour", "")
    page.wait_for_timeout(300)
    assert sorted(members(page)) == sorted(entry.number for entry in right)
    for name, value in (("#y", "loss"), ("#x", "decode_ms@b1"), ("#colour", "evaluation")):
        page.select_option(name, value)
    page.wait_for_timeout(300)


def test_boxes_change_the_chart(page, long):
    own = scored(long.entries, long.ledger.config.parsed_objectives()).frontier()
    assert sorted(members(page)) == sorted(entry.number for entry in own)
    bars = "Boolean(it.data.find((trace) => trace.name?.endsWith('long: frontier')).error_x)"
    assert chart(page, bars) is True
    page.uncheck("#errors")
    page.check("#log-x")
    page.wait_for_timeout(300)
    assert chart(page, bars) is False
    assert chart(page, "it.layout.xaxis.type") == "log"
    others = "it.data.some((trace) => trace.name?.includes('short'))"
    assert chart(page, others) is True
    page.uncheck("#others")
    page.wait_for_timeout(300)
    assert chart(page, others) is False
    page.check("#errors")
    page.check("#others")
    page.uncheck("#log-x")
    page.wait_for_timeout(300)


FIRST = """(() => {
  const trace = it.data.find((each) => each.name?.endsWith('long: frontier'));
  const box = it.querySelector('.nsewdrag').getBoundingClientRect();
  const { xaxis, yaxis } = it._fullLayout;
  return [box.left + xaxis.d2p(trace.x[0]), box.top + yaxis.d2p(trace.y[0])];
})()"""
"""Where the first member of the frontier is on the screen."""


def test_a_point_tells_of_itself_and_opens(page):
    page.locator("#part-frontier").scroll_into_view_if_needed()
    first = chart(page, FIRST)
    page.mouse.move(first[0] - 40, first[1] - 40)
    page.mouse.move(first[0], first[1], steps=4)
    page.wait_for_selector("#note:not([hidden])")
    assert re.match(r"long: candidate \d+", page.locator("#note").inner_text())
    page.mouse.click(first[0], first[1])
    page.wait_for_selector("#candidate:not([hidden])")
    assert page.locator("#candidate-title").inner_text().startswith("Candidate long:")


def test_the_wheel_zooms_and_a_key_shows_all(page):
    page.locator("#frontier-chart").scroll_into_view_if_needed()
    box = page.locator("#frontier-chart .nsewdrag").first.bounding_box()
    before = chart(page, "it._fullLayout.xaxis.range.slice()")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(400)
    near = chart(page, "it._fullLayout.xaxis.range.slice()")
    assert near[1] - near[0] < before[1] - before[0]
    page.focus("#frontier-chart")
    page.keyboard.press("Home")
    page.wait_for_timeout(300)
    assert chart(page, "it._fullLayout.xaxis.range.slice()") == pytest.approx(before)


def test_keys_walk_along_the_frontier(page, long):
    own = scored(long.entries, long.ledger.config.parsed_objectives()).frontier()
    across = sorted(own, key=lambda entry: entry.evaluation.metrics["decode_ms@b1"])
    page.focus("#frontier-chart")
    for entry in across[:2]:
        page.keyboard.press("ArrowRight")
        assert page.locator("#announced").inner_text().startswith(f"candidate {entry.number}: loss ")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.locator("#candidate-title").inner_text() == f"Candidate long:{across[0].number}"
    assert page.evaluate("document.activeElement.id") == "candidate-title"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "frontier-chart"
    assert page.locator("#candidate").is_hidden()


def child_of(long):
    """A candidate with scores and one parent."""
    return next(
        entry for entry in long.entries if len(entry.parents) == 1 and entry.evaluation.status == "ok"
    )


def test_a_candidate_shows_layers_timings_curve_origin_and_commands(page, long):
    entry = child_of(long)
    page.evaluate(f"location.hash = '#long:{entry.number}'")
    page.wait_for_selector(".stack li")
    assert page.locator(".stack li strong").all_inner_texts() == [
        each.operator for each in entry.architecture.layers
    ]
    timings = cells(page, "[aria-label=Timings] tbody tr")
    assert [row[0] for row in timings] == ["batch 1, context 1024", "batch 8, context 1024"]
    assert timings[0][2].startswith(f"{entry.evaluation.metrics['decode_ms@b1']:#.4g}")
    page.wait_for_selector("#curve .main-svg")
    points = page.evaluate("document.getElementById('curve').data[0].x")
    assert points == [tokens for tokens, _ in entry.evaluation.proxy.curve]
    assert page.locator("#candidate-body").get_by_text(f"Changed from {entry.parents[0]}").is_visible()
    assert page.locator("#candidate-body ul.changes li").count() >= 1
    engines = cells(page, "[aria-label=Engines] tbody tr")
    assert [row[0].split()[0] for row in engines] == ["transformers", "llama.cpp", "vllm", "sglang"]
    commands = page.locator(".command code").all_inner_texts()
    assert long.folder.command("export", entry.number) + " --without-weights --to winner" in commands
    page.click(f"#candidate-body button.link:text-is('candidate {entry.parents[0]}')")
    assert page.locator("#candidate-title").inner_text() == f"Candidate long:{entry.parents[0]}"


def test_two_candidates_stand_beside_each_other(page, long):
    entry = child_of(long)
    page.evaluate(f"location.hash = '#long:{entry.number}'")
    page.click(f"text=with parent {entry.parents[0]}")
    rows = {row[0].removeprefix("≠ "): row for row in cells(page, "[aria-label='Figures of both'] tbody tr")}
    parent = long.entries[entry.parents[0]]
    ratio = parent.evaluation.metrics["params"] / entry.evaluation.metrics["params"]
    assert rows["params"][3] == f"× {ratio:#.4g}".rstrip(".")
    assert ("≠" in rows["params"][0]) == (ratio != 1)
    layers = cells(page, "[aria-label='Layers of both, aligned'] tbody tr")
    assert sum(bool(row[1]) for row in layers) == entry.architecture.depth
    assert sum(bool(row[2]) for row in layers) == parent.architecture.depth
    assert {row[0] for row in layers} <= {"=", "≠", "+", "−"}
    page.fill("#beside", "short:2")
    page.click("#candidate-body button[type=submit]")
    assert page.locator("#candidate-title").inner_text() == f"Candidates long:{entry.number} and short:2"
    for text, said in (
        ("x", "expected a candidate's id"),
        ("999", "has no candidate 999"),
        ("no:1", "no run no"),
    ):
        page.fill("#beside", text)
        page.click("#candidate-body button[type=submit]")
        assert said in page.locator("#beside-wrong").inner_text()
    page.click("text=Only one")
    assert page.locator(".stack li").count() == entry.architecture.depth


def test_statuses_and_columns_are_chosen(page, long):
    page.select_option("#status", "diverged")
    assert {row[1] for row in cells(page)} == {
        str(entry.number) for entry in long.entries if entry.evaluation.status == "diverged"
    }
    page.check("#all-columns")
    headers = page.locator("#candidates thead th").all_inner_texts()
    assert any(header.startswith("bandwidth_fraction@b8") for header in headers)
    assert "reason" in headers
    page.uncheck("#all-columns")
    page.select_option("#status", "")
    page.check("#only-frontier")
    own = scored(long.entries, long.ledger.config.parsed_objectives()).frontier()
    assert sorted(int(row[1]) for row in cells(page)) == sorted(entry.number for entry in own)
    page.uncheck("#only-frontier")


def test_course_failures_and_configuration(page, long, value):
    names = page.evaluate("document.getElementById('course-chart').data.map((trace) => trace.name)")
    assert names == ["long", "short"]
    page.select_option("#course-by", "seconds")
    page.wait_for_timeout(300)
    assert (
        page.evaluate("document.getElementById('course-chart').data[0].x") == value["courses"][0]["seconds"]
    )
    page.select_option("#course-by", "evaluations")
    failures = cells(page, "#failures tbody tr")
    ended = [entry.evaluation.status for entry in long.entries]
    assert {row[0]: int(row[1]) for row in failures} == {
        status: ended.count(status) for status in ("infeasible", "diverged") if status in ended
    }
    page.click("text=Configuration >> nth=-1")
    assert page.locator("#provenance pre").inner_text().strip() == long.ledger.config.to_yaml().strip()
    assert "made-up GPU (cuda:0), float32" in page.locator("#provenance").inner_text()
    shares = page.evaluate("document.getElementById('operators-chart').data.map((trace) => trace.y.at(-1))")
    assert sum(shares) == pytest.approx(100)


def test_another_run_is_chosen(page):
    page.select_option("#run", label="short")
    page.wait_for_timeout(500)
    assert page.locator("#table-count").inner_text() == f"{SHORT} candidates of {SHORT}"
    assert page.locator("#pages").is_hidden()
    page.select_option("#run", label="long")
    page.wait_for_timeout(500)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone_in_both_schemes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    # The charts are drawn anew a moment later, on a busy machine after seconds. The page's content policy
    # forbids `wait_for_function`.
    for _ in range(100):
        if page.evaluate("document.documentElement.scrollWidth") <= 360:
            break
        page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#candidates button.link").first.click()
    panel = page.locator("#candidate").bounding_box()
    assert (panel["x"], panel["width"]) == (0, 360)
    assert contrast(page, "body") > 7
    assert contrast(page, ".soft") > 4.5
    assert luminance(background(page)) > 0.9 if scheme == "light" else luminance(background(page)) < 0.1
    drawn = page.evaluate("document.getElementById('frontier-chart').layout.font.color")
    assert drawn == page.evaluate(
        "getComputedStyle(document.documentElement).getPropertyValue('--text').trim()"
    )
    assert page.evaluate(UNNAMED) == []
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")


UNNAMED = """[...document.querySelectorAll(
    'button, input, select, a[href], [role=img], [role=application], [role=region]')]
  .filter((each) => each.checkVisibility() && !each.closest('[aria-hidden=true]'))
  .filter((each) => !(each.getAttribute('aria-label') || each.textContent.trim() || each.labels?.length))
  .map((each) => each.outerHTML.slice(0, 80))"""


def background(page):
    return page.evaluate("getComputedStyle(document.querySelector('main > section')).backgroundColor")


def contrast(page, selector):
    """WCAG's ratio of a text's colour to the panel behind it."""
    text = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color")
    lights = sorted(map(luminance, (text, background(page))))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
