"""`frontrunner report` and `frontrunner serve`: read arguments, call the room, print what it returns."""

from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import DEFAULT_RESULTS, Results, plain_console

console = plain_console()


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs, by name or folder; the first one is shown first.",
            show_default=False,
        ),
    ],
    to: Annotated[Path, typer.Option(help="The .html file to write.", show_default=False)],
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write one page of runs: frontier, candidates, progress and failures. It opens without a network."""
    from search.page.document import check_path, write
    from search.page.shown import Source, shown
    from search.runs.status import opened

    check_path(to)
    sources = [Source.read(*opened(results, run)) for run in runs]
    size = write(to, shown(sources), title=", ".join(source.folder.name for source in sources))
    console.print(f"page: {to} ({size / 1e6:.1f} MB)", soft_wrap=True)
