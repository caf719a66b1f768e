"""What commands have in common: options, and how they print JSON."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Results = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
DEFAULT_RESULTS = Path("results")
Run = Annotated[str, typer.Argument(help="Name of a run in the results folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
DeviceName = Annotated[str, typer.Option(help="cpu or cuda:N.")]
Threads = Annotated[int, typer.Option(help="Threads on a CPU.", min=1)]


def print_json(value: Any) -> None:
    """To standard output, unwrapped and without colours."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def example(text: str) -> str:
    """What stands below a command's help."""
    return f"Example: {text}"
