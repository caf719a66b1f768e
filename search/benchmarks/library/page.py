"""Benchmark: the page of a run of 10,000 candidates, whose evaluations are made up.

How large is the file, and how long does a browser take to open it? `open_text_s` is until its table stands
and can be used, `open_frontier_s` until the frontier's chart is drawn too, `open_charts_s` until all charts
are. All begin with the address and are the medians of several openings. `open_cpu_s` is the processor time of
the page's main thread until then. The browser has no window and no GPU, so that the CPU draws what else a GPU
draws.

    pip install playwright
    frontrunner bench page
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from operators.base.errors import ConfigError
from operators.base.threads import usable_cores
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.made_up_run import kept_run
from search.runs.ledger import open_ledger
from search.view.page import document
from search.view.page.shown import Source, shown

CANDIDATES = 10_000
OPENINGS = 5
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_DEADLINE_MS = 120_000  # of an opening, or of an answer to a click

# When the page marked that something stands, since its opening began (ms).
_MARK = "(name) => performance.getEntriesByName(name)[0].startTime"

T = TypeVar("T")


def page(device: str, console: Console) -> Measured:
    """Size of the file, and seconds to make it, to open it, to sort, to filter and to open a candidate."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ConfigError(f"bench page: expected a browser on this machine, one of {', '.join(BROWSERS)}")
    folder = kept_run(CANDIDATES, console)
    source, read_s = _timed(lambda: Source.read(folder, open_ledger(folder.ledger)))
    value, value_s = _timed(lambda: shown([source]))
    content, file_s = _timed(lambda: document.file(value, title=folder.name))
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "page.html"
        file.write_bytes(content)
        openings = [_open(browser, file) for _ in range(OPENINGS)]
    names = list(openings[0])
    figures: Figures = {
        "candidates": CANDIDATES,
        "cores": len(usable_cores()),
        "load_average": round(os.getloadavg()[0], 2),
        "openings": OPENINGS,
        "frontier": sum(by is None for _, by in value["runs"][0]["kinds"][0]["dominators"]),
        "file_bytes": len(content),
        "file_bytes_without_candidates": len(document.file(shown([]), title="")),
        "read_ledger_s": round(read_s, 2),
        "make_value_s": round(value_s, 2),
        "make_file_s": round(file_s, 2),
        **{name: round(statistics.median(opening[name] for opening in openings), 3) for name in names},
    }
    for name, figure in figures.items():
        console.print(f"{name:<32}{figure}")
    return Measured(figures, openings, folders=[folder.path])


def _open(browser: str, file: Path) -> dict[str, float]:
    """Opens the page in a fresh browser, and uses it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = opened.new_page(viewport={"width": 1280, "height": 900})
        tab.set_default_timeout(_DEADLINE_MS)
        costs = tab.context.new_cdp_session(tab)
        costs.send("Performance.enable", {"timeDomain": "threadTicks"})
        tab.goto(file.absolute().as_uri())
        tab.wait_for_selector("body[data-ready=charts]")
        marks = {name: tab.evaluate(_MARK, name) / 1e3 for name in ("text", "frontier", "charts")}
        counted = costs.send("Performance.getMetrics")["metrics"]
        spent = {each["name"]: each["value"] for each in counted}
        figures = {
            "open_text_s": marks["text"],
            "open_frontier_s": marks["frontier"],
            "open_charts_s": marks["charts"],
            "open_cpu_s": spent["TaskDuration"],
            "sort_s": _used(tab, lambda: tab.click("th button[data-column=params]")),
            "filter_s": _used(tab, lambda: _filter(tab)),
            "open_candidate_s": _used(tab, lambda: tab.locator("#candidates button.link").first.click()),
        }
        opened.close()
    return figures


def _filter(tab: Any) -> None:
    tab.fill("#where", "params <= 4e6")
    tab.keyboard.press("Enter")


def _used(tab: Any, action: Callable[[], object]) -> float:
    """Seconds of an action until the page answers again."""
    begun = time.perf_counter()
    action()
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
    return time.perf_counter() - begun


def _timed(action: Callable[[], T]) -> tuple[T, float]:
    begun = time.perf_counter()
    result = action()
    return result, time.perf_counter() - begun


BENCHMARK = Benchmark(
    "page",
    "the page of 10,000 candidates: its size, and how long a browser takes to open it",
    page,
    needs={"playwright": "pip install playwright"},
)
