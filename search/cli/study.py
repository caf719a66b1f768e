"""`frontrunner study`: reads arguments, calls the other folders, prints what they return."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from search.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Changes,
    Results,
    StudyName,
    exit_on_interrupt,
    plain_console,
    print_json,
    subcommands,
)
from search.view.terminal_tables import Sheet, show

if TYPE_CHECKING:
    from search.studies.experiment import ExperimentSettings

S = TypeVar("S", bound="ExperimentSettings")
T = TypeVar("T")

study_app = subcommands("Experiments: operators, ranks, normalization, rates, vision.")
console = plain_console()


class EqualName(StrEnum):
    parameters = "parameters"
    latency = "latency"


Config = Annotated[
    Path, typer.Argument(help="YAML file of the study, or a shipped name.", show_default=False)
]


@study_app.command(
    "operators",
    epilog="Example: frontrunner study operators study_operators_cpu --equal latency",
)
def operators_(
    config: Config,
    equal: Annotated[
        EqualName | None,
        typer.Option(help="Whether all blocks have equal parameters or latency.", show_default="the file's"),
    ] = None,
    changes: Changes = None,
    name: StudyName = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Train each operator alone and in pairs. The same command continues an interrupted study."""
    from search.studies import operators as study
    from search.studies.report import operators_table

    changes = [*(changes or ()), *([f"equal={equal.value}"] if equal else ())]
    _print_study(study.OperatorSettings, study.run, operators_table, config, changes, name, results, as_json)


@study_app.command("ranks", epilog="Example: frontrunner study ranks study_ranks_cpu")
def ranks_(
    config: Config,
    changes: Changes = None,
    name: StudyName = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Compare short and long trainings of the same models. The same command continues an interrupted one."""
    from search.studies import experiment
    from search.studies import ranks as study_ranks
    from search.studies.report import print_ranks

    settings = experiment.load(study_ranks.RankSettings, config, changes or ())
    study = _finish(study_ranks.run, settings, name or config.stem, results, as_json)
    if not as_json:
        print_ranks(console, study)
        return
    correlations = {
        name: {key: asdict(correlation) for key, correlation in of_name.items()}
        for name, of_name in study.correlations.items()
    }
    architectures = [asdict(architecture) for architecture in study.compared]
    print_json({"correlations": correlations, "architectures": architectures, "failed": study.failed})


@study_app.command("normalization", epilog="Example: frontrunner study normalization study_normalization_cpu")
def normalization_(
    config: Config,
    changes: Changes = None,
    name: StudyName = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Train families with and without weight normalization. The same command continues an interrupted one."""
    from search.studies import normalization as study
    from search.studies.report import normalization_table

    arguments = config, changes, name, results, as_json
    _print_study(study.NormalizationSettings, study.run, normalization_table, *arguments)


@study_app.command("rates", epilog="Example: frontrunner study rates study_rates_cpu")
def rates_(
    config: Config,
    changes: Changes = None,
    name: StudyName = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Find the best learning rate at several widths. The same command continues an interrupted study."""
    from search.studies import rates as study
    from search.studies.report import rates_table

    _print_study(study.RateSettings, study.run, rates_table, config, changes, name, results, as_json)


@study_app.command("vision", epilog="Example: frontrunner study vision study_vision_cpu")
def vision_(
    config: Config,
    changes: Changes = None,
    name: StudyName = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Train and measure variants of a model that sees. The same command continues an interrupted study."""
    from search.studies import vision as study
    from search.studies.report import vision_table

    _print_study(study.VisionStudySettings, study.run, vision_table, config, changes, name, results, as_json)


def _print_study(
    schema: type[S],
    run: Callable[..., Sequence[Any]],
    table: Callable[[Sequence[Any], S], Sheet],
    config: Path,
    changes: list[str] | None,
    name: str | None,
    results: Path,
    as_json: bool,
) -> None:
    """Runs a study whose result is rows, and prints them.

    schema: the class of its settings.
    run: the study, from settings to rows.
    table: shows its rows in a terminal.
    """
    from search.studies import experiment

    settings = experiment.load(schema, config, changes or ())
    rows = _finish(run, settings, name or config.stem, results, as_json)
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        show(console, table(rows, settings))


def _finish(
    run: Callable[..., T], settings: "ExperimentSettings", name: str, results: Path, as_json: bool
) -> T:
    """The result of a study. Progress goes to standard error where a script reads standard output."""
    with exit_on_interrupt():
        progress = plain_console(stderr=True) if as_json else console
        return run(settings, results=results, name=name, console=progress)
