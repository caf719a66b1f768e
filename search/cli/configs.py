"""`frontrunner configs`: lists the configurations that are shipped, and copies one for editing."""

import os
from pathlib import Path
from typing import Annotated

import typer

from operators.base import shipped
from operators.base.errors import ConfigError
from operators.base.files import write_whole
from search.cli.options import AsJson, plain_console, print_json

configs_app = typer.Typer(help="The configurations and models that are shipped.", rich_markup_mode=None)
console = plain_console()


@configs_app.callback(invoke_without_command=True, epilog="Example: frontrunner configs")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """The configurations and models that are shipped, a line each."""
    if context.invoked_subcommand is not None:
        return
    files = {kind: [shipped.find(Path(name), kind) for name in shipped.names(kind)] for kind in shipped.KINDS}
    rows = [
        {"name": file.stem, "kind": kind, "summary": shipped.summary(file)}
        for kind, found in files.items()
        for file in found
        if file is not None
    ]
    if as_json:
        print_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for kind in shipped.KINDS:
        console.print(f"{kind}s", markup=False)
        for row in rows:
            if row["kind"] == kind:
                console.print(f"  {row['name']:<{width}}  {row['summary']}", soft_wrap=True, markup=False)


@configs_app.command(epilog="Example: frontrunner configs copy h100_small")
def copy(
    name: Annotated[str, typer.Argument(help="A shipped name.", show_default=False)],
    to: Annotated[
        Path | None, typer.Option(help="File to write; it must not exist.", show_default="./NAME.yaml")
    ] = None,
) -> None:
    """Write a shipped configuration or model to a file, to edit it."""
    file = next(
        (file for kind in shipped.KINDS if (file := shipped.find(Path(name), kind)) is not None), None
    )
    if file is None:
        known = ", ".join(each for kind in shipped.KINDS for each in shipped.names(kind))
        raise ConfigError(f"{name}: no shipped configuration or model: expected one of {known}")
    path = to or Path(file.name)
    if os.path.lexists(path):
        raise ConfigError(f"{path} exists already: choose another file with --to")
    write_whole(path, file.read_bytes())
    console.print(f"wrote {path}", soft_wrap=True, markup=False)
