"""Writes the page of runs as a file."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from search.runs.folder import RunFolder
from search.runs.ledger import open_ledger
from search.view.page.document import check_path, write
from search.view.page.shown import Source, shown


def write_page(to: Path, folders: Sequence[RunFolder]) -> int:
    """Writes one HTML file that shows runs, and returns its size (bytes).

    to: the file, which is replaced as a whole where it exists.
    folders: of the runs; the first one is shown first.

    Raises RunError.
    """
    check_path(to)
    with ExitStack() as opened:
        ledgers = [opened.enter_context(closing(open_ledger(folder.ledger))) for folder in folders]
        value = shown([Source.read(*pair) for pair in zip(folders, ledgers, strict=True)])
    return write(to, value, title=", ".join(folder.name for folder in folders))
