"""`frontrunner frontier`: reads arguments, calls the other folders, prints what they return."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from operators.base.errors import ConfigError
from search.cli.options import DEFAULT_RESULTS, AsJson, Results, Run, print_json

if TYPE_CHECKING:
    from search.config.run import RunConfig
    from search.objectives import Objective

console = Console(highlight=False)


class TableFormat(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    markdown = "markdown"


def frontier(
    run: Run,
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            help="Metrics to compare by, separated by commas; may be repeated.",
            show_default="the run's own",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Show the frontier measured on this kind of device.",
            show_default="all kinds of the run together",
        ),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Column to sort by.", show_default="the first objective")
    ] = None,
    descending: Annotated[bool, typer.Option("--descending", help="Sort the largest first.")] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare only candidates that meet this condition, as in 'params <= 2e6'; may be repeated."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every candidate, not only the frontier.")
    ] = False,
    form: Annotated[
        TableFormat | None, typer.Option("--format", help="Format of the output.", show_default="table")
    ] = None,
    as_json: AsJson = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Also write a plot to this .png, .pdf or .svg file.", show_default=False),
    ] = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Print the Pareto frontier of a run. With --where, only candidates that meet conditions compete."""
    from search.runs.frontier import scored
    from search.runs.status import opened
    from search.view import tables
    from search.view.frame import csv_text, records, sorted_by

    form, quiet = _form(form, as_json), Console(stderr=True, highlight=False)
    if plot is not None:
        from search.view.frontier_plot import plot_format, plot_frontier  # matplotlib takes a second

        plot_format(plot)
    folder, ledger = opened(results, run)
    config, entries = ledger.config, ledger.entries()
    wanted = _objectives(objectives, kind, config)
    conditions = config.parsed_constraints(where or ())
    qualifying = [entry for entry in entries if tables.qualifying(entry, conditions)]
    if plot is not None and not scored(qualifying, wanted).entries:
        raise ConfigError(
            f"--plot {plot}: there is no candidate to draw: {tables.why_none(entries, conditions)}"
        )
    table = tables.frame(
        entries,
        wanted,
        config.metrics.names(),
        where=conditions,
        frontier=not everything,
    )
    shown = sorted_by(table, wanted[0].metric if sort is None else sort, descending=descending)
    also = [*(condition.metric for condition in conditions), *([] if sort is None else [sort])]
    columns = tables.columns_for(table, wanted, with_status=everything, also=also)

    title = f"{'candidates' if everything else 'frontier'} of {folder.name}{f' on {kind}' if kind else ''}"
    condition_text = f" where {' and '.join(map(str, conditions))}" if conditions else ""
    notes = [note for note in (tables.left_out(qualifying, wanted),) if note]
    if conditions and not qualifying:
        notes = [tables.why_none(entries, conditions)]
    counted = (
        f"{len(shown)} of {len(qualifying)} candidates"
        if not everything
        else f"{len(shown)} of {len(entries)} candidates"
    )
    counted += f" that qualify, of {len(entries)} in all" if conditions and not everything else ""
    if form is TableFormat.table:
        from search.view.terminal_tables import show

        sheet = tables.candidates_sheet(
            shown, columns, entries, title=f"{title}{condition_text}: {counted}", notes=notes
        )
        show(console, sheet)
    else:
        if form is TableFormat.json:
            print_json(records(shown))
        else:
            text = (
                csv_text(shown)
                if form is TableFormat.csv
                else tables.markdown(shown, columns, entries) + "\n"
            )
            sys.stdout.write(text)
        if conditions and not qualifying:
            quiet.print(notes[0], soft_wrap=True, markup=False)
    if plot is not None:
        drawn = f"{folder.name}{f' on {kind}' if kind else ''}{condition_text}"
        plot_frontier(entries, wanted, plot, title=drawn, first=config.evolution.population, where=conditions)
        quiet.print(f"plot: {plot}", soft_wrap=True, markup=False)


def _form(form: TableFormat | None, as_json: bool) -> TableFormat:
    if as_json and form not in (None, TableFormat.json):
        raise ConfigError(f"--json and --format {form.value}: expected only one of them")
    return TableFormat.json if as_json else form or TableFormat.table


def _objectives(texts: list[str] | None, kind: str | None, config: "RunConfig") -> "tuple[Objective, ...]":
    """The objectives to compare by. Raises ConfigError.

    texts: metrics, separated by commas. None means the run's own objectives.
    kind: keep the objectives measured on this kind of device.
    """
    from search.objectives import by_kind

    kinds = config.device_kind
    given = None if texts is None else [name.strip() for text in texts for name in text.split(",")]
    wanted = config.parsed_objectives(given)
    if kind is None:
        return wanted
    if kind not in kinds:
        raise ConfigError(
            f"--kind {kind}: expected a device_kind of the run: {', '.join(kinds) or 'it has none'}"
        )
    of_kind = by_kind(wanted, kinds)
    return of_kind[kind if len(kinds) > 1 else ""]
