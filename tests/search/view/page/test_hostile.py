"""A run whose names, reasons and architectures hold markup, scripts, quotes and long words."""

import csv
import html
import io
import sys
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from operators import Architecture
from search.benchmarks.made_up_run import config, evaluate
from search.evaluation.audits import Audit
from search.runs import ledger as ledger_module
from search.runs.folder import RunFolder
from search.searchers.contract import Proposal
from search.view.page import document
from search.view.page.server import open_server
from search.view.page.shown import shown
from search.view.page.site import Site
from tests.helpers.chromium import watched
from tests.search.view.page.conftest import read

pytestmark = pytest.mark.slow

EVIL = "</script><script>window.hit=1</script><img src=x onerror=window.hit=1>\"'&amp;{{7*7}}@data@\u2028"
LONG_WORD = "W" * 300
NAME = "<img src=x onerror=window.hit=1>'\"&amp;@title@"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> RunFolder:
    import numpy as np

    folder = RunFolder(tmp_path_factory.mktemp("hostile") / NAME)
    folder.path.mkdir()
    data = config(8).data.model_copy(update={"source": EVIL})
    settings = config(8).model_copy(update={"data": data})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["frontrunner", EVIL, LONG_WORD])
        ledger = ledger_module.create(folder.ledger, settings, started=EVIL)
    rng = np.random.default_rng(0)
    for number, letters in enumerate(("a f", "m f a f", "a f m f", "d f")):
        architecture = Architecture.from_shorthand(letters, width=64, vocabulary=300, name=EVIL)
        made = evaluate(architecture, number, settings.profile, rng)
        profile = made.profile.model_copy(update={"device_name": EVIL, "versions": {EVIL: LONG_WORD}})
        update = {
            "profile": profile,
            "metrics": {**made.metrics, EVIL: 1.0 + number},
            "versions": {"<b>python</b>": EVIL},
            "backends": {EVIL: LONG_WORD},
            "seconds": {EVIL: 1.0},
            "audits": (Audit(gate="latency", reason=EVIL),),
        }
        if number == 3:
            update |= {
                "status": "error",
                "reason": EVIL + LONG_WORD,
                "traceback": EVIL + LONG_WORD,
                "proxy": None,
            }
        parents = (number - 1,) if number else ()
        ledger.propose(Proposal(number, architecture, parents, "=1+1" + EVIL + LONG_WORD), {})
        ledger.begin(number, EVIL)
        ledger.record(number, made.model_copy(update=update))
    ledger.close()
    return folder


def check(kept, width):
    """Opens all that there is to open; nothing may run, and nothing may be wider than the screen."""
    page = kept.page
    page.set_viewport_size({"width": width, "height": 800})
    scripts = page.evaluate("document.scripts.length")
    for label in ("3", "2"):
        page.locator(f"#candidates button.link:text-is('{label}')").click()
        assert page.evaluate("document.getElementById('candidate').scrollWidth") <= width
        page.keyboard.press("Escape")
    page.locator("#candidates button.link:text-is('2')").click()
    page.click("text=with parent 1")
    page.wait_for_selector("#curve .main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("Escape")
    page.select_option("#colour", EVIL)
    page.select_option("#x", EVIL)
    page.check("#all-columns")
    page.wait_for_timeout(300)
    page.focus("#frontier-chart")
    page.keyboard.press("ArrowRight")
    assert EVIL.strip() in page.locator("#note").inner_text()
    assert EVIL in page.evaluate("document.querySelector('#failures').textContent")
    assert page.evaluate("window.hit") is None
    assert page.locator("img, script[src*=x], [onerror]").count() == 0
    assert page.evaluate("document.scripts.length") == scripts
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert kept.errors == []


def test_nothing_of_a_run_runs_or_breaks_the_file(browser, hostile, tmp_path):
    path = tmp_path / "page.html"
    document.write(path, shown([read(hostile.path)]), title=NAME)
    with watched(browser) as kept:
        kept.page.goto(path.as_uri())
        kept.ready()
        with kept.page.expect_download() as download:
            kept.page.click("#csv")
        rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
        # A spreadsheet takes nothing for a formula, and no quote ends a cell.
        assert [row["origin"] for row in rows] == ["'=1+1" + EVIL + LONG_WORD] * 4
        check(kept, 1280)
        check(kept, 360)
        assert NAME in kept.page.title()
        assert [url for url in kept.requests if not url.startswith(("file:", "blob:", "data:"))] == []


def test_nothing_of_a_run_runs_in_the_list_of_runs(browser, hostile):
    site = Site(hostile.path.parent)
    with open_server(site, host="127.0.0.1", port=0) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with watched(browser, viewport={"width": 360, "height": 700}) as kept:
            kept.page.goto(server.url)
            link = kept.page.locator("#runs a")
            assert link.inner_text() == NAME
            assert kept.page.evaluate("document.documentElement.scrollWidth") <= 360
            assert kept.page.evaluate("window.hit") is None
            assert kept.errors == []
            assert [url for url in kept.requests if not url.startswith(server.url)] == []
            (names,) = parse_qs(urlsplit(link.get_attribute("href")).query).values()
        server.shutdown()
    assert names == [NAME]
    page = site.page(names).decode()  # its script is the file's
    assert "<img" not in page
    assert f"<title>{html.escape(NAME)}</title>" in page


def test_data_and_names_are_no_markup_of_the_file(hostile):
    """What a browser reads as markup is ours alone, whatever the run holds."""
    text = document.file(shown([read(hostile.path)]), title=NAME).decode()
    assert "window.hit" not in text.replace("&lt;img src=x onerror=window.hit=1&gt;", "")
    assert text.count("<script") == text.count("</script>") == 3
