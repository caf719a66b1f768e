"""`frontrunner answers`: reads arguments, calls `search.runs.answering`, prints."""

from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    CandidateId,
    DeviceName,
    Results,
    plain_console,
    print_json,
    whole_number,
)

console = plain_console()

_DRAWN = 16


def answers(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, by name or folder; or RUN:ID.", show_default=False)
    ],
    candidate: CandidateId = None,
    count: Annotated[
        int, typer.Option(help="Number of held-out questions.", parser=whole_number(1))
    ] = _DRAWN,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Also draw images, questions and answers into this .png, .pdf or .svg file.",
            show_default=False,
        ),
    ] = None,
    device: DeviceName = "cpu",
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Show what a model that sees answers on held-out images."""
    from search.runs.answering import answers as answered_by
    from search.view.terminal_tables import sheet, show

    if to is not None:
        from search.view.frontier_plot import plot_format

        plot_format(to, option="--to")
    answered = answered_by(run, candidate, count, results=results, device=device)
    title = run if candidate is None else f"{run}:{candidate}"
    exact = sum(each.exact for each in answered)
    if to is not None:
        from search.view.answers_picture import draw_answers

        draw_answers(answered, to, title=f"{title}: {exact} of {len(answered)} held-out answers are exact")
    rows = [
        {"question": each.question, "answer": each.written, "right": each.right, "exact": each.exact}
        for each in answered
    ]
    if as_json:
        print_json(rows)
        return
    names = ("question", "answer", "right")
    cells = (
        [str(row["question"]), str(row["answer"]), "✓" if row["exact"] else str(row["right"])] for row in rows
    )
    show(console, sheet(names, cells, words=names))
    console.print(f"{exact} of {len(answered)} are exact", markup=False)
    if to is not None:
        console.print(f"drawn: {to}", soft_wrap=True, markup=False)
