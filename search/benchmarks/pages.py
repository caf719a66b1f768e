"""The pages docs/results/*.md: templates that take every figure from a record.

So a figure has one home.

A template is a Markdown file of results/benchmarks/pages/ in Jinja2's syntax. It can call:

    f("h100/decode"): the figures of the record results/benchmarks/h100/decode.json.
    samples(...): what the figures were computed from.
    recorded(...): whether there is such a record.
    cite(...): a sentence that links the record and names its device, day and command, or commands.

A name that no record has ends the command with one line.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError

from operators.base.errors import ConfigError
from operators.base.files import write_whole
from search.benchmarks import record

TEMPLATES = record.RECORDS / "pages"
PAGES = Path("docs/results")
# docs/records is a link to results/benchmarks, so that the site carries the records too.
LINK = "../records"


@dataclass(frozen=True)
class Page:
    """A generated page.

    path: where it lies.
    text: what belongs into it.
    """

    path: Path
    text: str

    @property
    def stale(self) -> bool:
        """Whether the file is missing or holds another text."""
        return not self.path.is_file() or self.path.read_text(encoding="utf-8") != self.text


def pages(root: Path = Path()) -> list[Page]:
    """Returns every page, made from the templates and records below `root`.

    Raises ConfigError, one line, for a name that is not there.
    """
    environment = Environment(
        loader=FileSystemLoader(root / TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown from our own templates, no HTML from outside
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    read = _reader(root / record.RECORDS)
    environment.globals |= {
        "f": lambda name: _Figures(name, read(name)["figures"]),
        "samples": lambda name: read(name)["samples"],
        "recorded": lambda name: (root / record.RECORDS / f"{name}.json").is_file(),
        "cite": lambda name: _cite(name, read(name)),
        "records": LINK,
    }
    environment.filters |= {"fixed": _fixed, "percent": _percent, "thousands": _thousands, "short": _short}
    rendered = []
    templates = sorted((root / TEMPLATES).glob("*.md"))
    if not templates:
        raise ConfigError(
            f"{root / TEMPLATES}: expected templates of pages, got none; run this in a checkout"
        )
    for template in templates:
        try:
            text = environment.get_template(template.name).render()
        except TemplateError as error:
            line = f", line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
            raise ConfigError(f"{template}{line}: {error.message}") from None
        rendered.append(Page(root / PAGES / template.name, text))
    return rendered


class _Figures(dict[str, Any]):
    """Figures of a record; a name that it does not have is an error that names both."""

    def __init__(self, record: str, figures: Mapping[str, Any]) -> None:
        super().__init__(figures)
        self._record = record

    def __missing__(self, name: str) -> Any:
        raise ConfigError(f"{self._record}.json: figures has no {name}")


def write_pages(root: Path = Path()) -> list[Path]:
    """Writes every page that differs from what the records give; returns the files written."""
    stale = [page for page in pages(root) if page.stale]
    for page in stale:
        write_whole(page.path, page.text.encode())
    return [page.path for page in stale]


def _reader(folder: Path) -> Callable[[str], Mapping[str, Any]]:
    known: dict[str, Mapping[str, Any]] = {}

    def read(name: str) -> Mapping[str, Any]:
        if name not in known:
            known[name] = record.read(folder / f"{name}.json")
        return known[name]

    return read


def _cite(name: str, cited: Mapping[str, Any]) -> str:
    day = f"{datetime.fromisoformat(cited['started']):%-d %B %Y}"
    # A record that was put together by hand has several commands.
    commands = [f"`{command.partition(' --out ')[0]}`" for command in cited["command"].split("; ")]
    made = " and ".join(commands)
    return f"Record: [{name}.json]({LINK}/{name}.json), {cited['device']['name']}, {day}, {made}."


def _fixed(value: float, digits: int = 0, sign: str = "") -> str:
    return f"{value:{sign},.{digits}f}"


def _percent(value: float, digits: int = 0, sign: str = "") -> str:
    return f"{100 * value:{sign}.{digits}f} %"


def _thousands(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    """Formats a count with an SI prefix, as 31.5M."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"
