"""`frontrunner report` and `frontrunner serve`: read arguments, call `search.view.page`, print."""

from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import (
    DEFAULT_RESULTS,
    Results,
    exit_on_interrupt,
    plain_console,
    run_names,
    whole_number,
)

console = plain_console()
PORT = 8642  # no well-known service has it


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs, by name or folder; the first one is shown first.",
            show_default=False,
            autocompletion=run_names,
        ),
    ],
    to: Annotated[Path, typer.Option(help="The .html file to write.", show_default=False)],
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write one page that shows runs. It has frontier, candidates and progress, and needs no network."""
    from search.runs.folder import find_folder
    from search.view.page.report import write_page

    size = write_page(to, [find_folder(results, run) for run in runs])
    console.print(f"page: {to} ({size / 1e6:.1f} MB)", soft_wrap=True)


def serve(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Runs, by name or folder.",
            show_default="all in --results",
            autocompletion=run_names,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen at. If other machines reach it, requests need the printed token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port; 0 takes a free one.", parser=whole_number(0, 65535))
    ] = PORT,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Show runs live in a browser, for reading only. It ends on Ctrl-C."""
    from search.runs.all_runs import run_folders
    from search.runs.folder import find_folder
    from search.view.page.server import open_server
    from search.view.page.site import Site

    only = [find_folder(results, run) for run in runs] if runs else None
    if only is None:
        run_folders(results)  # raises where there is no such folder
    with open_server(Site(results, only), host=host, port=port) as server, exit_on_interrupt():
        console.print(f"runs at {server.url}  (Ctrl-C ends)", soft_wrap=True)
        server.serve_forever()
