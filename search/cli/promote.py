"""`frontrunner promote`: trains winners longer, beside rivals of the same measured time."""

from collections.abc import Sequence
from typing import Annotated

import typer

from operators.base import plain_yaml
from operators.base.errors import ConfigError
from operators.base.value import whole
from search.cli.arguments import several
from search.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Results,
    Run,
    exit_on_interrupt,
    plain_console,
    print_json,
    whole_number,
)

console = plain_console()

MOST_SEEDS = 1000


def promote(
    run: Run,
    candidates: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...", help="Candidates, in place of the first --top.", show_default=False
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(help="Tokens of each training.", show_default=False, parser=whole_number(1)),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            help="How many candidates of the frontier, those first that add the most hypervolume.",
            parser=whole_number(1),
        ),
    ] = 3,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Rivals: shipped architectures, files, folders or RUN:ID.", show_default="nemotron-flash-1b"
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Trainings of each model.", parser=whole_number(1, MOST_SEEDS))
    ] = 3,
    metric: Annotated[
        str | None,
        typer.Option(
            help="The time that rivals are rescaled to.",
            show_default="the first one among the run's objectives and constraints",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda:N, or cuda for every GPU like the first.", show_default="the run's"),
    ] = None,
    name: Annotated[
        str,
        typer.Option(help="Folder of the results inside the run's folder; another device needs another one."),
    ] = "promoted",
    show: Annotated[
        bool, typer.Option("--show", help="Show what is known so far, and train nothing.")
    ] = False,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Train winners longer, beside rivals that are as fast. Each model is trained with several seeds."""
    from search.studies import promotion as study
    from search.studies.promotion_table import promotion_json, promotion_table
    from search.view.terminal_tables import show as show_table

    if show:
        found = study.shown(run, results=results, name=name)
    elif tokens is None:
        raise ConfigError(
            "--tokens: expected the tokens that each training reads, as in --tokens 5e6, got none"
        )
    else:
        with exit_on_interrupt():
            found = study.promote(
                run,
                results=results,
                tokens=tokens,
                seeds=seeds,
                top=top,
                candidates=_ids(candidates or ()),
                against=several(against) if against else study.AGAINST,
                metric=metric,
                device=device,
                name=name,
                console=plain_console(stderr=True) if as_json else console,
            )
    if as_json:
        print_json(promotion_json(found))
        return
    show_table(console, promotion_table(found))
    if best := next((one.folders for one in found.members if one.folders), None):
        console.print(
            f"export        frontrunner export {next(iter(best.values()))} --format huggingface --to winner",
            soft_wrap=True,
        )


def _ids(texts: Sequence[str]) -> tuple[int, ...]:
    """The ids in `17,4` and `2`. Raises ConfigError."""
    numbers = []
    for part in several(texts):
        number = whole(plain_yaml.number(part))
        if number is None or number < 0:
            raise ConfigError(f"candidate {part!r}: expected an id, as in the frontier table")
        numbers.append(number)
    return tuple(numbers)
