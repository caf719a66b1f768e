"""The page as HTML: one file with all that it needs, or what a server answers."""

import base64
import gzip
import hashlib
import html
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from operators.base.errors import RunError
from operators.base.files import write_whole

SCRIPTS = (
    *("base", "model", "chart", "thin", "frontier", "panel", "candidate", "compare"),
    *("table", "sections", "main"),
)
STYLES = ("page", "panel")
# The smallest of plotly.js's own bundles that has lines, points and bars, as the npm registry has it. The one
# of the package `plotly` draws maps and volumes too: browsers take four times as long to read it.
_PLOTLY = "plotly-basic.min.js"
ENDINGS = (".html", ".htm")
# Plotly makes its own style elements, so styles cannot be told apart by their hashes.
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src {connect}; base-uri 'none'; form-action 'none'"
)


@cache
def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def plotly() -> str:
    """The source of plotly.js, with its licence."""
    return asset(_PLOTLY)


@cache
def plotly_version() -> str:
    """Tells one source of plotly.js from another."""
    return hashlib.sha256(plotly().encode()).hexdigest()[:12]


@cache
def script(*names: str) -> str:
    """The page's own script: its files in one scope."""
    return "(() => {\n'use strict';\n" + "\n".join(asset(f"{name}.js") for name in names) + "})();\n"


def file(value: Any, *, title: str) -> bytes:
    """The page as one file, which needs nothing else and asks nothing of any network.

    value: of `shown`.
    title: of the page until its script runs.
    """
    own = script(*SCRIPTS)
    data = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return _filled(
        "page.html",
        title=title,
        address="",
        home="",
        plotly="",
        script=own,
        policy=_POLICY.format(scripts=f"{_hash(own)} {_hash(plotly())}", connect="'none'"),
        data=_packed("data", data.encode()) + _packed_plotly(),
    ).encode()


def live(*, address: str, title: str) -> bytes:
    """The page of a server.

    address: what answers with the value of `shown`; plotly.js lies beside the page.
    """
    own = script(*SCRIPTS)
    policy = _POLICY.format(scripts=f"'self' {_hash(own)}", connect="'self'")
    home = '<a href="./">All runs</a>'
    return _filled(
        "page.html",
        title=title,
        address=address,
        home=home,
        plotly=f"plotly.js?{plotly_version()}",
        script=own,
        policy=policy,
        data="",
    ).encode()


def listing() -> bytes:
    """The list of runs of a server."""
    own = script("base", "runs")
    policy = _POLICY.format(scripts=_hash(own), connect="'self'")
    return _filled("runs.html", script=own, policy=policy).encode()


def write(path: Path, value: Any, *, title: str) -> int:
    """Writes the page whole or not at all, and returns its bytes. Raises RunError."""
    check_path(path)
    content = file(value, title=title)
    write_whole(path, content)
    return len(content)


def check_path(path: Path) -> None:
    """Raises RunError for a place where no page can be written."""
    if path.is_dir():
        raise RunError(f"--to {path}: expected a file, got a folder")
    if path.suffix.lower() not in ENDINGS:
        raise RunError(f"--to {path}: expected a file that ends in .html")


def _filled(name: str, **values: str) -> str:
    """A page with its places filled; texts of a run are escaped."""
    texts = {key: html.escape(value) for key, value in values.items() if key in ("title", "address")}
    escaped = {**values, **texts, "style": "".join(asset(f"{each}.css") for each in STYLES)}
    parts = asset(name).split("@")  # text and names of places in turns
    return "".join(escaped[part] if number % 2 else part for number, part in enumerate(parts))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _packed(name: str, content: bytes) -> str:
    """Data in the page, which no browser takes for markup or for a script."""
    packed = base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
    return f'<script type="application/octet-stream" id="{name}">{packed}</script>\n'


@cache
def _packed_plotly() -> str:
    return _packed("plotly", plotly().encode())
