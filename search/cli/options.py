"""Options and helpers that several commands share."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from operators.base import plain_yaml, shipped
from operators.base.plain_json import finite
from operators.base.value import whole

Results = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
DEFAULT_RESULTS = Path("results")


def run_names(context: typer.Context, incomplete: str) -> list[str]:
    """For the completion of a shell: the runs of the results folder that begin so, in order."""
    results = Path(context.params.get("results") or DEFAULT_RESULTS)
    return sorted(
        path.parent.name for path in results.glob("*/ledger.db") if path.parent.name.startswith(incomplete)
    )


def candidate_names(context: typer.Context, incomplete: str) -> list[str]:
    """For the completion of a shell: runs, each with the colon that a candidate's id stands behind."""
    return [f"{name}:" for name in run_names(context, incomplete)]


def config_names(incomplete: str) -> list[str]:
    """For the completion of a shell: shipped configurations that begin so; the shell adds its own files."""
    return [name for name in shipped.names("configuration") if name.startswith(incomplete)]


Run = Annotated[
    str,
    typer.Argument(
        help="Name of a run in the results folder, or the run's own folder.",
        show_default=False,
        autocompletion=run_names,
    ),
]
Config = Annotated[
    Path,
    typer.Argument(
        help="YAML file of the run, or a shipped name.", show_default=False, autocompletion=config_names
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the configuration, as in proxy.tokens=2e6; may be repeated.",
        show_default=False,
    ),
]
MODEL = "File of an architecture, folder of a model, candidate as RUN:ID, .gguf file, or shipped name."
Model = Annotated[str, typer.Argument(help=MODEL, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
DeviceName = Annotated[str, typer.Option(help="Device to use: cpu or cuda:N.")]
MeasuredDevice = Annotated[str, typer.Option(help="Device to measure: cpu, cuda:N or llama.cpp.")]
StudyName = Annotated[
    str | None,
    typer.Option(help="Name of the study's folder in the results folder.", show_default="the file's name"),
]


class Dtype(StrEnum):
    """Types of the matrices in a GGUF file."""

    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    Q8_0 = "Q8_0"


def subcommands(summary: str) -> typer.Typer:
    """A group of commands, such as `frontrunner table`, that shows its help when no command is given."""
    return typer.Typer(help=summary, no_args_is_help=True, rich_markup_mode=None)


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Ends the command with exit code 130 on Ctrl-C, without a traceback or a message of its own."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def whole_number(least: int | None = None, most: int | None = None) -> Callable[[Any], int]:
    """A `parser=` for an option: reads whole numbers as run files do, so 2e6 and 2_000_000 are two million.

    least, most: the smallest and largest number that the option takes; None sets no bound.
    """

    def integer(text: Any) -> int:
        value = whole(plain_yaml.number(text) if isinstance(text, str) else text)
        if value is None or (least is not None and value < least) or (most is not None and value > most):
            raise typer.BadParameter(f"expected a whole number{_bounds(least, most)}, got {text!r}")
        return value

    return integer


def finite_number(least: float | None = None) -> Callable[[Any], float]:
    """A `parser=` for an option: reads finite numbers as run files do. It rejects infinity and NaN.

    least: the smallest number that the option takes; None sets no bound.
    """

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


CandidateId = Annotated[
    int | None,
    typer.Argument(
        metavar="ID",
        help="Id of a candidate, as in the frontier table.",
        show_default=False,
        parser=whole_number(0),
    ),
]
Threads = Annotated[
    int, typer.Option(help="Threads of PyTorch or llama.cpp on a CPU.", parser=whole_number(1))
]


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: the name of a folder may contain `[x]` or `:x:`, Rich's markup."""
    # Some batch systems set COLUMNS to 0 where there is no terminal; Rich would take that for the width.
    width = 80 if os.environ.get("COLUMNS") == "0" else None
    return Console(highlight=False, markup=False, emoji=False, stderr=stderr, width=width)


def print_json(value: Any) -> None:
    """Prints JSON to standard output, without wrapping or colours. NaN and infinity become null."""
    sys.stdout.write(json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def example(text: str) -> str:
    """The line below a command's help."""
    return f"Example: {text}"
