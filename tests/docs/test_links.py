"""Links between the pages: the file and the heading that each leads to are there."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, without_fences

ALL = [*PAGES, ROOT / "CHANGELOG.md"]


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.*)$", without_fences(page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_fences(page.read_text(encoding="utf-8")))
    dead = []
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            dead.append(link)
    assert dead == []
