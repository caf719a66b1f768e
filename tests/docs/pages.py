"""The pages that people read, and what is in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "records" not in page.relative_to(ROOT).parts]


def fenced(text: str, language: str = "") -> list[str]:
    """The contents of a page's code blocks in one language; plain blocks have none."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    return [content for kind, content in blocks if kind == language]


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)


def spans(text: str) -> list[str]:
    """The inline code of a page."""
    return re.findall(r"`([^`\n]+)`", without_fences(text))


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table, without heads and rules; `\\|` stays within its cell."""
    lines = text.splitlines()
    tables = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line.startswith("|") and before.startswith("|") and not line.startswith(("|-", "| -"))
    ]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in tables]


def section(text: str, title: str) -> str:
    """What is below a heading, up to the next one of its level or above."""
    level = re.search(rf"^(#+) {re.escape(title)}$", text, re.M)
    assert level is not None, f"no section {title}"
    rest = text[level.end() :]
    following = re.search(rf"^#{{1,{len(level[1])}}} ", rest, re.M)
    return rest[: following.start()] if following else rest
