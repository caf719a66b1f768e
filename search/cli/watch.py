"""`frontrunner watch`: reads arguments and calls `search.view.watch`."""

from typing import Annotated

import typer

from search.cli.options import DEFAULT_RESULTS, AsJson, Results, Run, plain_console, print_json


def watch(
    run: Run,
    once: Annotated[bool, typer.Option("--once", help="Show the run once, and end.")] = False,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Watch a run live. It shows the frontier, hypervolume, workers, failures and time.

    Ends with the run, or on Ctrl-C. With --json the run is shown once.
    """
    if as_json:
        from search.runs.status import opened
        from search.view.run import run_json

        print_json(run_json(*opened(results, run)))
        return
    from search.view.watch import watch as shown

    shown(results, run, plain_console(), once=once)
