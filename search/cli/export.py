"""`frontrunner export`: writes a model for others, in one of several formats."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from operators.base.errors import RunError
from search.cli.options import DEFAULT_RESULTS, CandidateId, Dtype, Results, finite_number, plain_console

console = plain_console()


class Format(StrEnum):
    architecture = "architecture"
    huggingface = "huggingface"
    huggingface_code = "huggingface-code"
    gguf = "gguf"


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
    to: Annotated[
        Path,
        typer.Option(help="New or empty folder to write; a new file for GGUF.", show_default=False),
    ],
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="What to write: our own folder, one for transformers (-code: with its own code), "
            "or a file for llama.cpp, two of a model that sees.",
        ),
    ] = Format.architecture,
    without_weights: Annotated[
        bool, typer.Option("--without-weights", help="Leave out the trained weights.")
    ] = False,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Write random weights; for other formats alone.")
    ] = False,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Type of the matrices, with --format gguf; F16 where not given.")
    ] = None,
    split_gb: Annotated[
        float | None,
        typer.Option(
            help="The most that one part holds, with --format gguf (10^9 bytes).", parser=finite_number(0.001)
        ),
    ] = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write a model as a folder or a file. A folder of ours also has its scores and where it comes from."""
    if format_ is not Format.gguf and (dtype is not None or split_gb is not None):
        option = "--dtype" if dtype is not None else "--split-gb"
        raise RunError(f"{option}: expected --format gguf, got {format_.value}")
    if format_ is Format.architecture:
        if random_weights:
            raise RunError("--random-weights: expected another --format than architecture")
        _own_folder(model, candidate, to, results, weights=not without_weights)
        return
    if without_weights:
        raise RunError(f"--without-weights: expected --format architecture, got {format_.value}")
    from search.runs.exportable import exportable

    sees = format_ in (Format.huggingface, Format.gguf)
    source = exportable(model, candidate, results, random_weights=random_weights, seeing=sees)
    if format_ is Format.gguf:
        from search.runs.export_gguf import export_gguf

        split_bytes = None if split_gb is None else int(split_gb * 1e9)
        remarks = export_gguf(source, to, dtype=(dtype or Dtype.F16).value, split_bytes=split_bytes)
    elif format_ is Format.huggingface_code:
        from search.runs.export_huggingface_code import export_huggingface_code

        remarks = export_huggingface_code(source, to)
    else:
        from search.runs.export_huggingface import export_huggingface

        remarks = export_huggingface(source, to)
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
