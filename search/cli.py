"""The command line: reads arguments, calls the rooms, prints what they return."""

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from operators.errors import ConfigError, FrontrunnerError
from search.arguments import joined
from search.bench_cli import bench
from search.data_cli import data_app
from search.device_cli import compare, doctor, operators, profile, warm
from search.jobs_cli import jobs, logs, run_name, stop, submit
from search.options import DEFAULT_RESULTS, AsJson, DeviceName, Results, Run, example, print_json
from search.studies.law_cli import law_app
from search.studies.study_cli import study_app
from search.table_cli import table_app
from search.watch_cli import watch

if TYPE_CHECKING:
    from search.run_folder import RunFolder

app = typer.Typer(
    help="Searches for the fastest hybrid small language models by latency measured on the device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(table_app, name="table")
app.add_typer(law_app, name="law")
app.add_typer(study_app, name="study")
console = Console(highlight=False)

CandidateId = Annotated[
    int, typer.Argument(help="Id of a candidate, as in the frontier table.", show_default=False)
]
ArchitectureFile = Annotated[
    Path, typer.Argument(help="YAML or JSON file of an architecture, or a shipped name.", show_default=False)
]


class ExecutorName(StrEnum):
    ray = "ray"
    inline = "inline"


class TableFormat(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    markdown = "markdown"


@app.command(epilog=example("frontrunner search configs/quick.yaml --name first"))
def search(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="Name of the run.", show_default="the file's name and the time")
    ] = None,
    results: Results = DEFAULT_RESULTS,
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster.", show_default="a local one")
    ] = None,
    executor: Annotated[
        ExecutorName, typer.Option(help="Where evaluations run; inline is for debugging.")
    ] = ExecutorName.ray,
) -> None:
    """Search: propose, measure and train candidates, and keep the Pareto frontier."""
    from search import config as config_module
    from search import run

    settings = config_module.load(config)
    name = run_name(name, config)
    folder = run.start(
        settings, results=results, name=name, console=console, executor=executor.value, address=address
    )
    _drive(folder, executor, address)


@app.command(epilog=example("frontrunner resume first"))
def resume(
    run_name: Annotated[
        str, typer.Argument(metavar="RUN", help="Name of a run in the results folder.", show_default=False)
    ],
    results: Results = DEFAULT_RESULTS,
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster.", show_default="a local one")
    ] = None,
    executor: Annotated[
        ExecutorName, typer.Option(help="Where evaluations run; inline is for debugging.")
    ] = ExecutorName.ray,
) -> None:
    """Go on with a run that was interrupted or killed."""
    from search.run_folder import find_folder

    _drive(find_folder(results, run_name), executor, address)


@app.command(epilog=example("frontrunner status first --json"))
def status(run: Run, results: Results = DEFAULT_RESULTS, as_json: AsJson = False) -> None:
    """How far a run is, and what its gates turned away."""
    from search.run import print_standing, standing

    found = standing(results, run)
    if as_json:
        print_json(found)
    else:
        print_standing(console, found)


app.command(epilog=example("frontrunner watch first"))(watch)
app.command(epilog=example("frontrunner submit run.yaml --address http://10.0.0.1:8265 --name first"))(submit)
app.command(epilog=example("frontrunner jobs --address http://10.0.0.1:8265"))(jobs)
app.command(epilog=example("frontrunner logs first-20260101-120000 --address http://10.0.0.1:8265"))(logs)
app.command(epilog=example("frontrunner stop first-20260101-120000 --address http://10.0.0.1:8265"))(stop)


@app.command(
    epilog=example(
        "frontrunner frontier first --objectives loss,decode_tokens_per_s@b8 --where 'params <= 2e6' --plot front.png"
    )
)
def frontier(
    run: Run,
    objectives: Annotated[
        str | None, typer.Option(help="Metrics, separated by commas.", show_default="the run's own")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Of device: the frontier there.", show_default="all that the run has together"),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Column to sort by.", show_default="the first objective")
    ] = None,
    descending: Annotated[bool, typer.Option("--descending", help="Largest first.")] = False,
    where: Annotated[
        list[str] | None, typer.Option(help="Keep rows that meet it, as in 'params <= 2e6'; may be repeated.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every candidate, not the frontier alone.")
    ] = False,
    form: Annotated[TableFormat, typer.Option("--format", help="How to print it.")] = TableFormat.table,
    as_json: AsJson = False,
    plot: Annotated[
        Path | None, typer.Option(help="Also write a plot (PNG) to this file.", show_default=False)
    ] = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """The Pareto frontier of a run as a table."""
    from search import tables
    from search.objectives import names, parse_constraint
    from search.run import opened

    folder, ledger = opened(results, run)
    wanted, config = _objectives(objectives, kind, ledger.config), ledger.config
    entries = ledger.entries()
    table = tables.frame(entries, wanted, names(config.profile, config.tasks, config.device_kind))
    table = table if everything or table.empty else table[table["frontier"]]
    kept = [parse_constraint(text, config.profile, config.tasks, config.device_kind) for text in where or []]
    table = tables.select(table, where=kept, sort=sort or wanted[0].metric, descending=descending)
    columns = tables.columns_for(table, wanted, with_status=everything)
    if form == TableFormat.json or as_json:
        print_json(tables.records(table))
    elif form == TableFormat.csv:
        sys.stdout.write(table.to_csv(index=False))
    elif form == TableFormat.markdown:
        sys.stdout.write(tables.markdown(table, columns) + "\n")
    else:
        what = f"{'candidates' if everything else 'frontier'} of {folder.name}{f' on {kind}' if kind else ''}"
        console.print(
            tables.rich_table(table, columns, title=f"{what}: {len(table)} of {len(entries)} candidates")
        )
    if plot is not None:
        from search.report import plot_frontier

        title = f"{folder.name}{f' on {kind}' if kind else ''}"
        plot_frontier(entries, wanted, plot, title=title, first=ledger.config.evolution.population)
        Console(stderr=True, highlight=False).print(f"plot: {plot}", soft_wrap=True)


@app.command(epilog=example("frontrunner show first 17"))
def show(
    run: Run, candidate: CandidateId, results: Results = DEFAULT_RESULTS, as_json: AsJson = False
) -> None:
    """Everything about one candidate: architecture, scores, timing, origin."""
    from search.details import candidate_json, print_candidate
    from search.run import candidate_of

    folder, ledger, entry = candidate_of(results, run, candidate)
    if as_json:
        print_json(candidate_json(folder, ledger, entry))
    else:
        print_candidate(console, folder, entry)


@app.command(epilog=example("frontrunner export first 17 --to winner"))
def export(
    run: Run,
    candidate: CandidateId,
    to: Annotated[Path, typer.Option(help="New or empty folder to write.", show_default=False)],
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write a candidate's architecture, scores, provenance and trained weights to a folder."""
    from search.export import export as write
    from search.run import candidate_of

    folder, ledger, entry = candidate_of(results, run, candidate)
    write(folder, ledger, entry, to)
    console.print(
        f"exported candidate {candidate} of {run} to {to}; {to}/README.md shows how to run it", soft_wrap=True
    )


@app.command("import", epilog=example("frontrunner import Llama-3.2-1B --to llama"))
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="Hugging Face folder (config.json, safetensors) or .gguf file.", show_default=False
        ),
    ],
    to: Annotated[
        Path | None, typer.Option(help="New or empty folder to write.", show_default="imported/NAME")
    ] = None,
) -> None:
    """Turn a published model into an architecture with its weights."""
    from search.importing import import_model, model_name

    to = to if to is not None else Path("imported") / model_name(source)
    found = import_model(source, to)
    console.print(
        f"imported {found.architecture.name}, {found.parameters:,} parameters, to {to}",
        soft_wrap=True,
        markup=False,
    )
    if found.without_tokenizer:
        console.print(
            f"no tokenizer.json, which search.export.load needs: {found.without_tokenizer}",
            soft_wrap=True,
            markup=False,
        )


@app.command(epilog=example("frontrunner train configs/architectures/tiny-hybrid.yaml --tokens 300000"))
def train(
    architecture: ArchitectureFile,
    config: Annotated[
        Path | None,
        typer.Option(help="Run file whose data and proxy sections to use.", show_default="the defaults"),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Token budget.", show_default="the proxy section's")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="Synthetic tasks beside, as in recall,copy.", show_default="the tasks section's"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.", min=0, max=2**63 - 1)] = 0,
    device: DeviceName = "cpu",
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to go on from after a kill.", show_default="none is written")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train one architecture as the proxy does and print its score."""
    from search.details import task_settings, train_on_tasks, train_once

    shown, wanted = None if as_json else console, task_settings(config, tasks)
    score = train_once(
        architecture,
        config_path=config,
        tokens=tokens,
        seed=seed,
        device=device,
        checkpoint=checkpoint,
        console=shown,
    )
    scores = train_on_tasks(architecture, wanted, seed=seed, device=device, console=shown)
    if as_json:
        print_json(
            {**score.model_dump(mode="json"), "tasks": [found.model_dump(mode="json") for found in scores]}
        )


app.command(epilog=example("frontrunner profile smollm2-135m first:17 --batch 1 8 --context 512"))(profile)
app.command(
    epilog=example("frontrunner compare nemotron-flash-1b llama-3.2-1b --context 8192 --device cuda:0")
)(compare)
app.command(epilog=example("frontrunner operators --device cuda:0"))(operators)
app.command(epilog=example("frontrunner warm configs/quick.yaml llama-3.2-1b --device cuda:0"))(warm)
app.command(epilog=example("frontrunner doctor --json"))(doctor)
app.command(epilog=example("frontrunner bench quick --out results/benchmarks/cpu/quick.json"))(bench)


def _drive(folder: "RunFolder", executor: ExecutorName, address: str | None) -> None:
    from search.run import go_on

    try:
        go_on(folder, executor=executor.value, address=address, console=console)
    except KeyboardInterrupt:  # what it said is all that there is to say
        raise typer.Exit(130) from None


def _objectives(text: str | None, kind: str | None, config: Any) -> tuple[Any, ...]:
    """The metrics of that text, or the run's objectives; of one kind of device where one is given."""
    from search.objectives import by_kind, parse_objective

    kinds = config.device_kind
    wanted = config.parsed_objectives()
    if text is not None:
        wanted = tuple(
            parse_objective(name.strip(), config.profile, config.tasks, kinds) for name in text.split(",")
        )
    if kind is None:
        return tuple(wanted)
    if kind not in kinds:
        raise ConfigError(
            f"--kind {kind}: expected a device_kind of the run: {', '.join(kinds) or 'it has none'}"
        )
    found = by_kind(wanted, kinds)
    return found[kind if len(kinds) > 1 else ""]


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Runs a command; every error of ours is one line on standard error and exit code 1, a wrong call is 2, an interrupt 130."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(joined(sys.argv[1:]))
    except FrontrunnerError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(1)
    except MemoryError as error:
        sys.stderr.write(f"error: out of memory: {' '.join(str(error).split())[:200]}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
