"""`frontrunner submit`, `jobs`, `logs`, `stop`: read arguments, call `search.cluster`, print results."""

import sys
from typing import Annotated

import typer

from search.cli.options import AsJson, Changes, Config, plain_console, print_json
from search.config.name import new_name
from search.view.terminal_tables import sheet, show

console = plain_console()

Address = Annotated[
    str, typer.Option(help="Address of Ray's dashboard, as http://HOST:8265.", show_default=False)
]
JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="Id of a job, as `submit` printed it.", show_default=False)
]


def submit(
    config: Config,
    address: Address,
    changes: Changes = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run.", show_default="the file's name and the time")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run that --name names, with its own configuration.")
    ] = False,
    results: Annotated[
        str | None,
        typer.Option(
            help="Folder on the cluster's head that holds the runs.", show_default="~/frontrunner/results"
        ),
    ] = None,
) -> None:
    """Start a search on a Ray cluster. It continues when this terminal is closed."""
    from operators.base.errors import ConfigError
    from search.cluster import jobs
    from search.config import run as config_module

    if resume and name is None:
        raise ConfigError("--resume: expected --name RUN with it, the run to continue")
    settings = config_module.load(config, changes or ())
    job = jobs.submit(
        settings,
        address=address,
        name=new_name(config.stem) if name is None else name,
        resume=resume,
        results=results,
    )
    console.print(
        f"job {job}; `frontrunner logs {job} --address {address}` shows its output",
        soft_wrap=True,
        markup=False,
    )


def jobs(address: Address, as_json: AsJson = False) -> None:
    """List the searches that were submitted to a cluster."""
    from search.cluster import jobs

    rows = jobs.jobs(address)
    if as_json:
        print_json(rows)
        return
    names = ("job", "run", "status", "started", "ended")
    cells = ([str(row[name] or "") for name in names] for row in rows)
    show(console, sheet(names, cells, words=names, optional=("started", "ended")))
    for row in rows:
        if row["reason"]:
            console.print(f"{row['job']}: {row['reason']}", soft_wrap=True, markup=False)


def logs(job: JobId, address: Address) -> None:
    """Print the output of a submitted search so far."""
    from search.cluster import jobs

    sys.stdout.write(jobs.logs(address, job))


def stop(job: JobId, address: Address) -> None:
    """End a submitted search, as Ctrl-C does. `submit --resume` continues it."""
    from search.cluster import jobs

    was_running = jobs.stop(address, job)
    console.print(
        f"job {job} {'was asked to end' if was_running else 'was not running any more'}",
        soft_wrap=True,
        markup=False,
    )
