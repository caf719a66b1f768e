"""Runs whose evaluations are made up, and a browser."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from operators.base.files import locked, whole_folder
from search.benchmarks.made_up_run import make_run
from search.runs.folder import RunFolder
from search.runs.ledger import open_ledger
from search.view.page.shown import Source, shown
from tests.helpers import chromium

LONG, SHORT = 48, 5
"""Candidates of the two runs; a page of the table has 25 rows."""


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two runs of the same objectives, which test processes share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-up"
    with locked(folder.with_suffix(".lock")):
        if not folder.exists():
            with whole_folder(folder) as partial:
                make_run(partial / "long", LONG)
                make_run(partial / "short", SHORT, seed=1)
    return folder


@pytest.fixture(scope="session")
def long(results: Path) -> Source:
    return read(results / "long")


@pytest.fixture(scope="session")
def value(long: Source, results: Path) -> dict[str, Any]:
    """What the page shows of both runs."""
    return shown([long, read(results / "short")])


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium.started() as opened:
        yield opened


def read(path: Path) -> Source:
    folder = RunFolder(path)
    return Source.read(folder, open_ledger(folder.ledger))
