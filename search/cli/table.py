"""`frontrunner table`: reads arguments, calls the other folders, prints what they return."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from search.cli.arguments import whole_numbers
from search.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Changes,
    DeviceName,
    Results,
    Threads,
    plain_console,
    print_json,
    subcommands,
    whole_number,
)
from search.view.terminal_tables import show

table_app = subcommands("What each layer costs on a device. Shows how well that predicts models.")
console = plain_console()

TableFile = Annotated[
    Path | None,
    typer.Option(
        "--table", help="File of the latency table.", show_default="the device's, in results/tables/"
    ),
]


@table_app.command("build", epilog="Example: frontrunner table build quick --batch 1 8 --context 1024")
def build_(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SPACE_OR_ARCH...",
            help="Run files, shipped names, folders of runs, and models.",
            show_default=False,
        ),
    ],
    batch: Annotated[
        list[str] | None, typer.Option(help="Batch sizes, as in 1,8,64.", show_default="the run's, or 1,8")
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(help="Tokens in the state, as in 8192,32768.", show_default="the run's, or 1024"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device to use: cpu or cuda:N.", show_default="the run's, or cpu")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads of PyTorch on a CPU.", parser=whole_number(1), show_default="the run's, or 1"
        ),
    ] = None,
    table: TableFile = None,
    results: Results = DEFAULT_RESULTS,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Measure the entries that a table lacks. Spaces and architectures say which are needed."""
    from operators.base.threads import torch_threads
    from profiler.device.device import open_device
    from profiler.table.build import build
    from profiler.table.latency_table import LatencyTable, default_path
    from search.runs.table_for_space import wanted
    from search.view.latency_table import progress

    needs = wanted(
        sources,
        batches=whole_numbers("--batch", batch or []),
        contexts=whole_numbers("--context", context or []),
        device=device,
        threads=threads,
        results=results,
        changes=changes or (),
    )
    opened = open_device(needs.device)
    with torch_threads(needs.threads):
        kept = LatencyTable.open(table or default_path(opened), opened)
        before = len(kept.entries)
        build(
            kept,
            needs.architectures,
            needs.points,
            device=opened,
            on_entry=None if as_json else progress(console),
        )
    summary = {"table": str(kept.path), "measured": len(kept.entries) - before, "entries": len(kept.entries)}
    if as_json:
        print_json(summary)
    else:
        console.print(
            f"{kept.path}: {summary['entries']} entries, {summary['measured']} of them new", soft_wrap=True
        )


@table_app.command("show", epilog="Example: frontrunner table show --device cpu --json")
def show_(
    device: DeviceName = "cpu", threads: Threads = 1, table: TableFile = None, as_json: AsJson = False
) -> None:
    """Print the entries of a latency table. It is the device's, or one in any file."""
    from operators.base.threads import torch_threads
    from profiler.device.device import open_device
    from profiler.table.latency_table import LatencyTable, default_path
    from search.view.latency_table import entries_table

    with torch_threads(threads):
        path = table or default_path(open_device(device))
    latencies = LatencyTable.read(path)
    if as_json:
        entries = [entry.model_dump(mode="json") for entry in latencies.entries]
        print_json({"table": str(path), "conditions": latencies.conditions, "entries": entries})
        return
    console.print(
        f"{path}\n{', '.join(f'{name} {value}' for name, value in latencies.conditions.items())}",
        markup=False,
    )
    show(console, entries_table(latencies.entries))


@table_app.command(
    "validate",
    epilog="Example: frontrunner table validate table_cuda --holdout 60 --device cuda:0",
)
def validate_(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML file of a run, or a shipped name, whose space models are drawn from.",
            show_default=False,
        ),
    ],
    changes: Changes = None,
    holdout: Annotated[
        int, typer.Option(parser=whole_number(2), help="Number of models to draw and measure.")
    ] = 60,
    seed: Annotated[int, typer.Option(parser=whole_number(0), help="Seed of the draw.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="Device to use: cpu or cuda:N.", show_default="the run's")
    ] = None,
    table: TableFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare a table's predictions with measured models. These are drawn at random."""
    from operators.base.threads import torch_threads
    from profiler.device.device import open_device
    from profiler.table.latency_table import LatencyTable, default_path
    from search.runs.table_for_space import accuracy_figures, load_space, samples
    from search.view.latency_table import accuracy_table, build_and_validate

    run = load_space(config, changes or ())
    opened, quiet = open_device(device or run.device), plain_console(stderr=True)
    with torch_threads(run.profile.threads):
        kept = LatencyTable.open(table or default_path(opened), opened)
        cases = build_and_validate(
            kept, run, count=holdout, seed=seed, device=opened, console=quiet if as_json else console
        )
    if as_json:
        accuracy = {name: asdict(figures) for name, figures in accuracy_figures(cases).items()}
        print_json({"table": str(kept.path), "accuracy": accuracy, "models": samples(cases)})
    else:
        show(console, accuracy_table(cases))
