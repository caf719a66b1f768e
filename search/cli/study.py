"""`frontrunner study`: reads arguments, calls the rooms, prints what they return."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from search.cli.options import DEFAULT_RESULTS, AsJson, Results, plain_console, print_json
from search.view.terminal_tables import Sheet, show

if TYPE_CHECKING:
    from search.studies.experiment import ExperimentSettings

T = TypeVar("T")

study_app = typer.Typer(
    help="What operators and weight normalization are worth, and whether short trainings can be trusted.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
console = plain_console()


class EqualName(StrEnum):
    parameters = "parameters"
    latency = "latency"


Config = Annotated[
    Path, typer.Argument(help="YAML file of the study, or a shipped name.", show_default=False)
]
Name = Annotated[str | None, typer.Option(help="Name in the results folder.", show_default="the file's name")]


@study_app.command(
    "operators",
    epilog="Example: frontrunner study operators study_operators_cpu --equal latency",
)
def operators_(
    config: Config,
    equal: Annotated[
        EqualName | None, typer.Option(help="What all blocks have in common.", show_default="the file's")
    ] = None,
    name: Name = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Each operator alone and in pairs; the same command goes on where it was interrupted."""
    from search.studies import experiment
    from search.studies import operators as study_operators
    from search.studies.report import operators_table

    settings = experiment.load(study_operators.OperatorSettings, config)
    if equal is not None:
        settings = settings.model_copy(update={"equal": equal.value})
    rows = _made(study_operators.run, settings, results, name or config.stem, as_json)
    _print_rows(rows, operators_table(rows, settings), as_json)


@study_app.command("ranks", epilog="Example: frontrunner study ranks study_ranks_cpu")
def ranks_(
    config: Config, name: Name = None, results: Results = DEFAULT_RESULTS, as_json: AsJson = False
) -> None:
    """Short against long training of the same architectures; the same command goes on where it was interrupted."""
    from search.studies import experiment
    from search.studies import ranks as study_ranks
    from search.studies.report import print_ranks

    settings = experiment.load(study_ranks.RankSettings, config)
    study = _made(study_ranks.run, settings, results, name or config.stem, as_json)
    if as_json:
        found = {
            "correlations": {
                name: {key: asdict(one) for key, one in both.items()}
                for name, both in study.correlations.items()
            }
        }
        print_json(
            {**found, "architectures": [asdict(one) for one in study.compared], "failed": study.failed}
        )
    else:
        print_ranks(console, study)


@study_app.command("normalization", epilog="Example: frontrunner study normalization study_normalization_cpu")
def normalization_(
    config: Config, name: Name = None, results: Results = DEFAULT_RESULTS, as_json: AsJson = False
) -> None:
    """Each family with weight normalization and without; the same command goes on where it was interrupted."""
    from search.studies import experiment
    from search.studies import normalization as study_normalization
    from search.studies.report import normalization_table

    settings = experiment.load(study_normalization.NormalizationSettings, config)
    effects = _made(study_normalization.run, settings, results, name or config.stem, as_json)
    _print_rows(effects, normalization_table(effects, settings), as_json)


@study_app.command("rates", epilog="Example: frontrunner study rates study_rates_cpu")
def rates_(
    config: Config, name: Name = None, results: Results = DEFAULT_RESULTS, as_json: AsJson = False
) -> None:
    """The best learning rate at several widths; the same command goes on where it was interrupted."""
    from search.studies import experiment
    from search.studies import rates as study_rates
    from search.studies.report import rates_table

    settings = experiment.load(study_rates.RateSettings, config)
    sweeps = _made(study_rates.run, settings, results, name or config.stem, as_json)
    _print_rows(sweeps, rates_table(sweeps, settings), as_json)


def _made(
    run: Callable[..., T], settings: "ExperimentSettings", results: Path, name: str, as_json: bool
) -> T:
    """What a study found. Progress goes to standard error where standard output is for a script."""
    progress = plain_console(stderr=True) if as_json else console
    try:
        return run(settings, results=results, name=name, console=progress)
    except KeyboardInterrupt:  # what was said is all that there is to say
        raise typer.Exit(130) from None


def _print_rows(rows: Sequence[Any], table: Sheet, as_json: bool) -> None:
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        show(console, table)
