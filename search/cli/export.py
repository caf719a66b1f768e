"""`frontrunner export`: writes a model for others, in one of several formats."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from operators.base.errors import RunError
from search.cli.options import DEFAULT_RESULTS, CandidateId, Results, plain_console

if TYPE_CHECKING:
    from search.runs.exportable import Exportable

console = plain_console()


class Format(StrEnum):
    architecture = "architecture"
    huggingface = "huggingface"


def _huggingface(model: "Exportable", to: Path) -> list[str]:
    from search.runs.export_huggingface import export_huggingface

    return export_huggingface(model, to)


FORMATS: dict[Format, Callable[["Exportable", Path], list[str]]] = {Format.huggingface: _huggingface}
"""What writes a model in each format of other engines; it returns lines for the user."""


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run, by name or folder, with the ID of a candidate; or RUN:ID; with --format also a "
            "folder that was exported or imported, or an architecture.",
            show_default=False,
        ),
    ],
    candidate: CandidateId = None,
    *,
    to: Annotated[Path, typer.Option(help="New or empty folder to write.", show_default=False)],
    format_: Annotated[
        Format,
        typer.Option("--format", help="What to write: our own folder, or one that transformers loads."),
    ] = Format.architecture,
    without_weights: Annotated[
        bool, typer.Option("--without-weights", help="Leave out the trained weights.")
    ] = False,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Write random weights; for other formats alone.")
    ] = False,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write a candidate's architecture, scores, provenance and trained weights to a folder."""
    if format_ is Format.architecture:
        if random_weights:
            raise RunError("--random-weights: expected another --format than architecture")
        _own_folder(model, candidate, to, results, weights=not without_weights)
        return
    if without_weights:
        raise RunError(f"--without-weights: expected --format architecture, got {format_.value}")
    from search.runs.exportable import exportable

    source = exportable(model, candidate, results, random_weights=random_weights)
    remarks = FORMATS[format_](source, to)
    console.print(f"exported {source.title} to {to}", soft_wrap=True)
    for remark in remarks:
        console.print(remark, soft_wrap=True)


def _own_folder(run: str, number: int | None, to: Path, results: Path, *, weights: bool) -> None:
    from search.runs.export import export as write
    from search.runs.sources import candidate_named

    folder, ledger, entry = candidate_named(run, number, results)
    write(folder, ledger, entry, to, weights=weights)
    how = f"{to}/README.md shows how to run it" if weights else f"`frontrunner profile {to}` measures it"
    console.print(f"exported candidate {entry.number} of {folder.name} to {to}; {how}", soft_wrap=True)
