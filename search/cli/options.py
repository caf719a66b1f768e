"""What commands have in common: options, and how they print JSON."""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from operators.base import plain_yaml
from operators.base.value import whole

Results = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
DEFAULT_RESULTS = Path("results")
Run = Annotated[
    str,
    typer.Argument(help="Name of a run in the results folder, or the run's own folder.", show_default=False),
]
MODEL = "File, folder with an architecture.yaml, candidate as RUN:ID, or shipped name."
Model = Annotated[str, typer.Argument(help=MODEL, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
DeviceName = Annotated[str, typer.Option(help="cpu or cuda:N.")]


def whole_number(least: int | None = None, most: int | None = None) -> Callable[[Any], int]:
    """For `parser=` of an option: reads a whole number as a YAML file's is read, so that 2e6 and 2_000_000 are two million."""

    def integer(text: Any) -> int:
        value = whole(plain_yaml.number(text) if isinstance(text, str) else text)
        if value is None or (least is not None and value < least) or (most is not None and value > most):
            raise typer.BadParameter(f"expected a whole number{_bounds(least, most)}, got {text!r}")
        return value

    return integer


def finite_number(least: float | None = None) -> Callable[[Any], float]:
    """For `parser=` of an option: reads a number as a YAML file's is read, but no infinity and no nan."""

    def number(text: Any) -> float:
        value = plain_yaml.number(text) if isinstance(text, str) else text
        if value is None or not isfinite(value) or (least is not None and value < least):
            raise typer.BadParameter(f"expected a number{_bounds(least, None)}, got {text!r}")
        return float(value)

    return number


def _bounds(least: float | None, most: float | None) -> str:
    if most is not None:
        return f" from {least} to {most}" if least is not None else f" of at most {most}"
    return f" of at least {least:g}" if least is not None else ""


Threads = Annotated[int, typer.Option(help="Threads on a CPU.", parser=whole_number(1))]


def plain_console(*, stderr: bool = False) -> Console:
    """Prints text as it is: `[x]` and `:x:` may stand in the name of a folder, and are no markup."""
    width = (
        80 if os.environ.get("COLUMNS") == "0" else None
    )  # some batch systems say 0 where there is no terminal
    return Console(highlight=False, markup=False, emoji=False, stderr=stderr, width=width)


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
