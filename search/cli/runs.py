"""`frontrunner runs`, `rm` and `diff`: read arguments, call the other folders, print what they return."""

from dataclasses import asdict
from typing import Annotated

import typer

from search.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Results,
    Run,
    candidate_names,
    plain_console,
    print_json,
)

console = plain_console()


def runs(results: Results = DEFAULT_RESULTS, as_json: AsJson = False) -> None:
    """List the runs of a results folder. Those that changed last come first."""
    from search.runs.all_runs import run_folders, summary
    from search.view.all_runs import runs_table
    from search.view.terminal_tables import show

    listed = [summary(folder) for folder in run_folders(results)]
    if as_json:
        rows = [asdict(run) for run in listed]
        print_json([{**row, "changed": row["changed"].isoformat(timespec="seconds")} for row in rows])
    elif listed:
        show(console, runs_table(listed))
    else:
        console.print(f"no run in {results}", soft_wrap=True)


def rm(
    run: Run,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Remove a run with its ledger and weights. A run that is still driven is not removed."""
    from operators.base.errors import RunError
    from search.runs.all_runs import check_removable, remove, summary
    from search.runs.folder import find_folder
    from search.view.all_runs import sized

    folder = find_folder(results, run)
    check_removable(folder)
    if not yes:
        known = summary(folder)
        question = f"remove {folder.path}, {known.evaluated} evaluated candidates, {sized(known)}?"
        try:
            agreed = typer.confirm(question, err=True)
        except typer.Abort:
            typer.echo(err=True)  # the question has no end of line
            agreed = False
        if not agreed:
            raise RunError(
                f"run {folder.name}: not removed, as the answer was not yes; --yes asks no question"
            )
    remove(folder)
    console.print(f"removed {folder.path}", soft_wrap=True)


Candidate = Annotated[
    str,
    typer.Argument(help="A candidate, as RUN:ID.", show_default=False, autocompletion=candidate_names),
]


def diff(
    first: Candidate, second: Candidate, results: Results = DEFAULT_RESULTS, as_json: AsJson = False
) -> None:
    """Print what differs between two candidates. Compares their architectures and their figures."""
    from search.runs.sources import candidate_named
    from search.view.difference import difference, print_difference

    (_, _, one), (_, _, other) = (candidate_named(name, None, results) for name in (first, second))
    if as_json:
        print_json({"first": first, "second": second, **difference(one, other)})
    else:
        print_difference(console, (first, second), one, other)
