"""The live page in a real browser: the list of runs, runs together, and news while a search goes on."""

import shutil
import threading

import pytest

from search.runs.ledger import open_ledger
from search.searchers.contract import Proposal
from search.view.page.server import open_server
from search.view.page.site import Site
from tests.helpers.chromium import cells, watched
from tests.search.view.page.conftest import LONG

pytestmark = pytest.mark.slow


def test_the_server_shows_runs_and_follows_them(browser, results, tmp_path):
    own = shutil.copytree(results, tmp_path / "results")
    with open_server(Site(own), host="127.0.0.1", port=0) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with watched(browser, viewport={"width": 1280, "height": 900}) as kept:
            page = kept.page
            page.goto(server.url)
            page.wait_for_selector("#runs table")
            assert {row[1] for row in cells(page, "#runs tbody tr")} == {"long", "short"}
            page.check("[aria-label='Choose long']")
            assert page.locator("#show").is_disabled()
            page.check("[aria-label='Choose short']")
            page.click("#show")
            kept.ready()
            assert sorted(page.locator("#run option").all_inner_texts()) == ["long", "short"]
            page.click("th button[data-column=params]")
            page.locator("#candidates button.link").first.click()
            title = page.locator("#candidate-title").inner_text()
            ledger = open_ledger(own / "long" / "ledger.db")
            entry = ledger.entries()[3]
            ledger.propose(Proposal(LONG, entry.architecture, (3,), "mutation"), {})
            ledger.begin(LONG, "here")
            ledger.record(LONG, entry.evaluation)
            more = page.locator(f"#table-count:text('{LONG + 1} candidates of {LONG + 1}')")
            more.wait_for(state="attached")
            assert page.locator("#candidate-title").inner_text() == title  # what is open stays open
            assert page.locator("#problem").is_hidden()
            assert (
                page.locator("th:has(button[data-column=params])").get_attribute("aria-sort") == "ascending"
            )
            page.keyboard.press("Escape")
            shutil.rmtree(own / "short")
            page.locator("#problem:text(\"no news from the server: unknown run 'short'\")").wait_for()
            page.click("text=All runs")
            page.wait_for_selector("#runs a:text-is('long')")
            assert page.locator("#runs a").count() == 1
            assert [error for error in kept.errors if "404" not in error] == []  # of the run that went away
            assert [url for url in kept.requests if not url.startswith(server.url)] == []
        server.shutdown()
