"""The Chromium of this machine without a window, and pages in it whose every request and error is kept."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def started() -> Iterator[Any]:
    """A browser; skips the test with the reason where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no Chromium on this machine: none of {', '.join(NAMES)}")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"{path} does not start: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what it did that a page of ours must not do.

    requests: addresses that it asked for over a network.
    errors: of its scripts and in its console.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def ready(self) -> None:
        """Waits until its charts are drawn."""
        self.page.wait_for_selector("body[data-ready=charts]", timeout=60_000)


@contextmanager
def watched(browser: Any, **options: Any) -> Iterator[Watched]:
    """A page in a context of its own; options: of the context, as its viewport."""
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)
    page = context.new_page()
    kept = Watched(page)
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    network.on("Network.requestWillBeSent", lambda event: kept.requests.append(event["request"]["url"]))
    page.on("pageerror", lambda error: kept.errors.append(str(error)))
    page.on("console", lambda said: kept.errors.append(said.text) if said.type == "error" else None)
    yield kept
    context.close()


def cells(page: Any, selector: str = "#candidates tbody tr") -> list[list[str]]:
    """The texts of the cells of a table's rows."""
    return [row.locator("td, th").all_inner_texts() for row in page.locator(selector).all()]
