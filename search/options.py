"""What commands have in common: options, and how they print JSON."""

import json
import math
import sys
from collections.abc import Mapping
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
    """To standard output, unwrapped and without colours. JSON has no NaN and no infinity: they become null."""
    sys.stdout.write(json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def example(text: str) -> str:
    """What stands below a command's help."""
    return f"Example: {text}"
