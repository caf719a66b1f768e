"""`frontrunner law`: reads arguments, calls the other folders, prints what they return."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Changes,
    Results,
    StudyName,
    exit_on_interrupt,
    finite_number,
    plain_console,
    print_json,
    subcommands,
    whole_number,
)

law_app = subcommands(
    "How loss depends on depth and width. Picks the best depth and width of a block within a latency."
)
console = plain_console()


class Quantity(StrEnum):
    loss = "loss"
    perplexity = "perplexity"


Experiment = Annotated[
    str, typer.Argument(metavar="LAW", help="Name of the law in the results folder.", show_default=False)
]
OfQuantity = Annotated[Quantity, typer.Option("--of", help="The quantity that the law predicts.")]
Budget = Annotated[
    int | None,
    typer.Option(
        "--tokens",
        parser=whole_number(1),
        help="Use only trainings with this budget.",
        show_default="all budgets",
    ),
]


@law_app.command("run", epilog="Example: frontrunner law run law_cpu")
def run_(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML file of the law (its block, depths, widths and sections of a run), or a shipped name.",
            show_default=False,
        ),
    ],
    changes: Changes = None,
    name: StudyName = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Train and measure a grid of depths and widths. The same command continues an interrupted grid."""
    from search.runs.folder import RunFolder
    from search.studies import experiment
    from search.studies.law import law

    settings = experiment.load(law.LawSettings, config, changes or ())
    with exit_on_interrupt():
        folder = law.run(settings, results=results, name=name or config.stem, console=console)
    console.print(f"records: {folder}\n{RunFolder(folder).command('law fit')}", soft_wrap=True, markup=False)


@law_app.command("fit", epilog="Example: frontrunner law fit law_cpu --of perplexity --holdout 3")
def fit_(
    name: Experiment,
    of: OfQuantity = Quantity.loss,
    holdout: Annotated[
        int,
        typer.Option(
            parser=whole_number(0),
            help="Number of the largest shapes (by depth × width²) to leave out of the fit and to predict.",
        ),
    ] = 3,
    tokens: Budget = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Write the plot to this .png, .pdf or .svg file.",
            show_default="law.png in the law's folder",
        ),
    ] = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Fit the law, and check it on shapes larger than the fitted ones."""
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
        float,
        typer.Option(
            help="Largest latency of a decode step, in milliseconds.",
            show_default=False,
            parser=finite_number(0),
        ),
    ],
    batch: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1),
            help="Batch size of the decode step.",
            show_default="the first of the profile",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Latency table to predict latencies from, instead of the measured ones.",
            show_default=False,
        ),
    ] = None,
    of: OfQuantity = Quantity.loss,
    tokens: Budget = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Print the best depths and widths within a latency. The best have the lowest predicted loss."""
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
