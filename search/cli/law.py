"""`frontrunner law`: reads arguments, calls the rooms, prints what they return."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Results,
    finite_number,
    plain_console,
    print_json,
    whole_number,
)

law_app = typer.Typer(
    help="How the loss of a repeated block depends on its depth and width, and which of them suit a latency.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
console = plain_console()


class Of(StrEnum):
    loss = "loss"
    perplexity = "perplexity"


Experiment = Annotated[
    str, typer.Argument(metavar="LAW", help="Name of the law in the results folder.", show_default=False)
]
OfQuantity = Annotated[Of, typer.Option("--of", help="What the law is of.")]
Budget = Annotated[
    int | None,
    typer.Option(
        "--tokens",
        parser=whole_number(1),
        help="One training budget.",
        show_default="all that were trained",
    ),
]


@law_app.command("run", epilog="Example: frontrunner law run law_cpu")
def run_(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML file (block, depths, widths, a run's sections), or a shipped name.", show_default=False
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name in the results folder.", show_default="the file's name")
    ] = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Train and measure a grid of depths and widths; the same command goes on where it was interrupted."""
    from search.runs.folder import RunFolder
    from search.studies import experiment
    from search.studies.law import law

    name = name or config.stem
    try:
        folder = law.run(
            experiment.load(law.LawSettings, config), results=results, name=name, console=console
        )
    except KeyboardInterrupt:  # what it said is all that there is to say
        raise typer.Exit(130) from None
    console.print(f"records: {folder}\n{RunFolder(folder).command('law fit')}", soft_wrap=True, markup=False)


@law_app.command("fit", epilog="Example: frontrunner law fit law_cpu --of perplexity --holdout 3")
def fit_(
    name: Experiment,
    of: OfQuantity = Of.loss,
    holdout: Annotated[
        int,
        typer.Option(
            parser=whole_number(0), help="How many of the largest shapes (depth × width²) to predict unseen."
        ),
    ] = 3,
    tokens: Budget = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="File of the plot: .png, .pdf or .svg.", show_default="law.png in the law's folder"
        ),
    ] = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Fit the law, and check it on shapes larger than those that it was fitted to."""
    from search.studies import experiment_store
    from search.studies.law import law
    from search.studies.law import report as law_report
    from search.view.frontier_plot import plot_format
    from search.view.tables import taint_notes

    if plot is not None:
        plot_format(plot)
    grid, folder = law.grid(results, name), experiment_store.folder_of(results, name)
    checked = law_report.check(grid, of=of.value, holdout=holdout, tokens=tokens)
    path = plot or folder.path / "law.png"
    drawn = law_report.plot(grid, checked, path, title=folder.name)
    tainted = {law.label(*shape): reasons for shape, reasons in grid.tainted.items()}
    if as_json:
        print_json({**law_report.figures(checked), "plot": str(path) if drawn else None, "tainted": tainted})
        return
    law_report.print_check(console, checked)
    console.print(
        f"plot: {path}" if drawn else "no plot: no latency was measured", soft_wrap=True, markup=False
    )
    for note in taint_notes(tainted):
        console.print(note, soft_wrap=True, markup=False)


@law_app.command("pick", epilog="Example: frontrunner law pick law_cpu --latency-ms 0.8 --batch 1")
def pick_(
    name: Experiment,
    latency_ms: Annotated[
        float, typer.Option(help="Of a decode step, at most.", show_default=False, parser=finite_number(0))
    ],
    batch: Annotated[
        int | None,
        typer.Option(parser=whole_number(1), help="Rows of a step.", show_default="the first of the profile"),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Latency table to ask instead of what was measured.", show_default=False),
    ] = None,
    of: OfQuantity = Of.loss,
    tokens: Budget = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """The depth and width with the lowest predicted loss within a latency."""
    from search.studies.law import law
    from search.studies.law import report as law_report

    grid = law.grid(results, name)
    choices = law_report.picked(
        grid, of=of.value, budget_ms=latency_ms, batch=batch, tokens=tokens, table=table
    )
    if as_json:
        print_json([asdict(choice) for choice in choices])
    else:
        tainted = len(grid.tainted) if table is None else 0
        law_report.print_choices(console, choices, of=of.value, tainted=tainted)
