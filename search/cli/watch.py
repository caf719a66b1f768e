"""`frontrunner watch`: reads arguments and calls the room."""

from typing import Annotated

import typer

from search.cli.options import DEFAULT_RESULTS, Results, Run, plain_console


def watch(
    run: Run,
    once: Annotated[bool, typer.Option("--once", help="Show the run once, then end.")] = False,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Watch a run: its frontier, hypervolume, workers, failures and time. Ends with the run, or on Ctrl-C."""
    from search.view.watch import watch as shown

    shown(results, run, plain_console(), once=once)
