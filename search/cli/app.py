"""The command line: reads arguments, calls the other folders, prints what they return."""

import os
import signal
import sys
from contextlib import closing
from enum import StrEnum
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from operators.base.errors import FrontrunnerError, flat
from search.cli.answers import answers
from search.cli.arguments import joined
from search.cli.bench import bench
from search.cli.configs import configs_app
from search.cli.data import data_app
from search.cli.device import compare, doctor, operators, profile, warm
from search.cli.evaluate import evaluate, generate
from search.cli.export import export
from search.cli.frontier import frontier
from search.cli.jobs import jobs, logs, stop, submit
from search.cli.law import law_app
from search.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    CandidateId,
    Changes,
    Config,
    Results,
    Run,
    example,
    plain_console,
    print_json,
    run_names,
)
from search.cli.page import report, serve
from search.cli.promote import promote
from search.cli.runs import diff, rm, runs
from search.cli.study import study_app
from search.cli.table import table_app
from search.cli.train import train
from search.cli.watch import watch
from search.config.name import new_name

if TYPE_CHECKING:
    from search.runs.folder import RunFolder

app = typer.Typer(
    help="Searches for the fastest hybrid small language models by latency measured on the device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(configs_app, name="configs")
app.add_typer(data_app, name="data")
app.add_typer(table_app, name="table")
app.add_typer(law_app, name="law")
app.add_typer(study_app, name="study")
console = plain_console()

PROGRESS_LINES = 10  # of a training

RunOfCandidate = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run, by name or folder; or RUN:ID.",
        show_default=False,
        autocompletion=run_names,
    ),
]


class ExecutorName(StrEnum):
    ray = "ray"
    inline = "inline"


Address = Annotated[
    str | None, typer.Option(help="Address of a running Ray cluster.", show_default="a local one")
]
Executor = Annotated[ExecutorName, typer.Option(help="Where evaluations run; inline is for debugging.")]


@app.command(epilog=example("frontrunner search quick --name first"))
def search(
    config: Config,
    changes: Changes = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run.", show_default="the file's name and the time")
    ] = None,
    results: Results = DEFAULT_RESULTS,
    address: Address = None,
    executor: Executor = ExecutorName.ray,
    as_json: AsJson = False,
) -> None:
    """Search for the best models. Propose, measure and train candidates, and keep the Pareto frontier."""
    from search.config import run as config_module
    from search.runs import run
    from search.view.progress import print_event

    notices = plain_console(stderr=True) if as_json else console
    try:
        folder = run.start(
            config_module.load(config, changes or ()),
            results=results,
            name=new_name(config.stem) if name is None else name,
            executor=executor.value,
            address=address,
            on_event=partial(print_event, notices),
        )
    except KeyboardInterrupt:
        sys.stderr.write("interrupted before the run began: the same command continues from here\n")
        raise typer.Exit(130) from None
    _go_on(folder, executor, address, as_json=as_json)


@app.command(epilog=example("frontrunner resume first"))
def resume(
    run_name: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Name of a run in the results folder, or its folder.",
            show_default=False,
            autocompletion=run_names,
        ),
    ],
    results: Results = DEFAULT_RESULTS,
    address: Address = None,
    executor: Executor = ExecutorName.ray,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was interrupted or killed."""
    from search.runs.folder import find_folder

    _go_on(find_folder(results, run_name), executor, address, as_json=as_json)


@app.command(epilog=example("frontrunner status first --json"))
def status(run: Run, results: Results = DEFAULT_RESULTS, as_json: AsJson = False) -> None:
    """Print how far a run is, and what its gates rejected."""
    from search.runs.status import opened, standing
    from search.view.run import print_standing

    figures = standing(*opened(results, run))
    if as_json:
        print_json(figures)
    else:
        print_standing(console, figures)


app.command(epilog=example("frontrunner watch first"))(watch)
app.command(epilog=example("frontrunner runs"))(runs)
app.command(epilog=example("frontrunner rm first"))(rm)
app.command(epilog=example("frontrunner diff first:17 first:4"))(diff)
app.command(epilog=example("frontrunner submit run.yaml --address http://10.0.0.1:8265 --name first"))(submit)
app.command(epilog=example("frontrunner jobs --address http://10.0.0.1:8265"))(jobs)
app.command(epilog=example("frontrunner logs first-20260101-120000 --address http://10.0.0.1:8265"))(logs)
app.command(epilog=example("frontrunner stop first-20260101-120000 --address http://10.0.0.1:8265"))(stop)


app.command(
    epilog=example(
        "frontrunner frontier first --objectives loss,decode_tokens_per_s@b8 --where 'params <= 2e6' "
        "--plot front.png"
    )
)(frontier)


app.command(epilog=example("frontrunner report first --to first.html"))(report)
app.command(epilog=example("frontrunner serve"))(serve)


@app.command(epilog=example("frontrunner show first 17"))
def show(
    run: RunOfCandidate,
    candidate: CandidateId = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Print everything about one candidate. That is its architecture, scores, timings and origin."""
    from search.runs.sources import candidate_named
    from search.view.candidate import candidate_json, print_candidate

    folder, ledger, entry = candidate_named(run, candidate, results)
    if as_json:
        print_json(candidate_json(folder, ledger, entry))
    else:
        print_candidate(console, folder, entry)


app.command(epilog=example("frontrunner export first 17 --to winner --format huggingface"))(export)
app.command(epilog=example("frontrunner answers sees 3 --to answers.png"))(answers)


@app.command("import", epilog=example("frontrunner import Llama-3.2-1B --to llama"))
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="Hugging Face folder (config.json, safetensors) or .gguf file; of a model that sees its "
            "mmproj-NAME.gguf, beside NAME.gguf.",
            show_default=False,
        ),
    ],
    to: Annotated[
        Path | None, typer.Option(help="New or empty folder to write.", show_default="imported/NAME")
    ] = None,
) -> None:
    """Turn a published model into an architecture with its weights."""
    from search.runs.importing import import_model, model_name

    to = to if to is not None else Path("imported") / model_name(source)
    imported = import_model(source, to)
    console.print(
        f"imported {imported.architecture.name}, {imported.parameters:,} parameters, to {to}",
        soft_wrap=True,
        markup=False,
    )
    for remark in imported.remarks:
        console.print(remark, soft_wrap=True, markup=False)
    if imported.without_tokenizer:
        console.print(
            f"no tokenizer.json, which frontrunner.load needs: {imported.without_tokenizer}",
            soft_wrap=True,
            markup=False,
        )


app.command(epilog=example("frontrunner evaluate first:17 book.txt --window 512 --stride 256"))(evaluate)
app.command(
    epilog=example(
        'frontrunner generate first:17 "The people" --tokens 50 --temperature 0.8 --top-k 40 --seed 1'
    )
)(generate)


app.command(epilog=example("frontrunner train first:17 --tokens 5e6 --to winner"))(train)
app.command(
    epilog=example("frontrunner promote first --top 3 --against nemotron-flash-1b llama-3.2-1b --tokens 5e6")
)(promote)
app.command(epilog=example("frontrunner profile smollm2-135m first:17 --batch 1 8 --context 512"))(profile)
app.command(
    epilog=example("frontrunner compare nemotron-flash-1b llama-3.2-1b --context 8192 --device cuda:0")
)(compare)
app.command(epilog=example("frontrunner operators --device cuda:0"))(operators)
app.command(epilog=example("frontrunner warm quick llama-3.2-1b --device cuda:0"))(warm)
app.command(epilog=example("frontrunner doctor --json"))(doctor)
app.command(epilog=example("frontrunner bench quick --out results/benchmarks/cpu/quick.json"))(bench)


def _go_on(folder: "RunFolder", executor: ExecutorName, address: str | None, *, as_json: bool) -> None:
    """Drives a run to its end and prints what it found."""
    from search.runs.ledger import open_ledger
    from search.runs.run import drive_to_end
    from search.view.progress import display, print_event
    from search.view.run import print_ended, run_json, write_plots

    notices = plain_console(stderr=True) if as_json else console
    try:
        with display(notices) as show:
            ended = drive_to_end(
                folder,
                executor=executor.value,
                address=address,
                on_progress=show,
                on_event=partial(print_event, notices),
            )
    except KeyboardInterrupt:  # `display` has said how to go on
        raise typer.Exit(130) from None
    write_plots(ended)
    if as_json:
        with closing(open_ledger(folder.ledger)) as ledger:
            print_json(run_json(folder, ledger))
    else:
        print_ended(console, ended)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Runs a command.

    Every error of ours is one line on standard error and exit code 1. A wrong call is exit code 2, and an
    interrupt is 130.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the letters of µ or × shows ? for them
    try:
        try:
            app(joined(sys.argv[1:]), prog_name="frontrunner")  # `python -m` has other names for it
        finally:
            sys.stdout.flush()  # at exit a full disk could no longer be reported
    except BrokenPipeError:  # the reader, as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except FrontrunnerError as error:
        sys.stderr.write(f"error: {flat(error)}\n")
        sys.exit(1)
    except MemoryError as error:
        sys.stderr.write(f"error: out of memory: {flat(error, at_most=200)}\n")
        sys.exit(1)
    except OSError as error:
        if error.strerror is None:
            raise
        sys.stderr.write(f"error: {error.filename or 'standard output'}: {error.strerror}\n")
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
