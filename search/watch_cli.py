"""`frontrunner watch`: reads arguments, calls the room."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def watch(
    run: Annotated[str, typer.Argument(help="Name of a run in the results folder.", show_default=False)],
    once: Annotated[bool, typer.Option("--once", help="Show it a single time.")] = False,
    results: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("results"),
) -> None:
    """Watch a run: frontier, hypervolume, workers, failures and where their time goes. Ends with the run or on Ctrl-C."""
    from search.watch import watch as shown

    shown(results, run, Console(highlight=False), once=once)
