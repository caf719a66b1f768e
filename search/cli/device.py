"""`frontrunner profile`, `compare`, `operators`, `warm`, `doctor`: read arguments, call others, print."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from operators.base.errors import ConfigError
from profiler.device.names import LLAMA_CPP
from search.cli.arguments import several, whole_numbers
from search.cli.options import (
    DEFAULT_RESULTS,
    MODEL,
    AsJson,
    Changes,
    DeviceName,
    Dtype,
    MeasuredDevice,
    Results,
    Threads,
    finite_number,
    plain_console,
    print_json,
    whole_number,
)
from search.view.terminal_tables import sheet, show

console = plain_console()

Quantization = Annotated[
    Dtype | None, typer.Option(help="Number format of matrices in llama.cpp.", show_default="Q8_0")
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        help="Engines of others to measure the exported model in as well: llama.cpp, transformers, or both.",
        show_default=False,
    ),
]
Backend = Annotated[str, typer.Option(help="auto, or the name of the backend that every operator uses.")]


def profile(
    architectures: Annotated[
        list[str],
        typer.Argument(
            help="Architectures' files, models' folders, candidates as RUN:ID, GGUF files, shipped names.",
            show_default=False,
        ),
    ],
    batch: Annotated[
        list[str] | None, typer.Option(help="Batch sizes to measure, as in 1,8,64.", show_default="1,8")
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(help="Tokens of context to measure at, as in 8192,32768.", show_default="256"),
    ] = None,
    threads: Threads = 1,
    device: MeasuredDevice = "cpu",
    backend: Backend = "auto",
    energy: Annotated[
        float,
        typer.Option(
            help="Seconds of decoding over which a GPU's energy is measured; 0 measures none.",
            parser=finite_number(0),
        ),
    ] = 0.0,
    largest_batch: Annotated[
        bool,
        typer.Option(
            "--largest-batch", help="Also find the largest batch that fits, and measure decoding with it."
        ),
    ] = False,
    images: Annotated[
        int, typer.Option(help="Images in each prompt of models that see.", parser=whole_number(1))
    ] = 1,
    engine: Engines = None,
    quantization: Quantization = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Measure the latency, throughput, memory and energy of models."""
    from search.runs.sources import model_of
    from search.view.profiles import print_profiles, profile_each, profile_settings, profiles_json, tell

    settings = profile_settings(
        batch_sizes=whole_numbers("--batch", batch or ["1,8"]),
        contexts=whole_numbers("--context", context or ["256"]),
        threads=threads,
        energy_seconds=energy,
        largest_batch=largest_batch,
        images=images,
        quantization=_quantization(quantization, (device, *several(engine or []))),
    )
    _say_what_is_measured(architectures)
    profiles = profile_each(
        [model_of(text, results) for text in architectures],
        settings,
        device=device,
        backend=backend,
        engines=several(engine or []),
        on_measured=tell(plain_console(stderr=True)),
    )
    if as_json:
        print_json(profiles_json(profiles))
    else:
        print_profiles(console, profiles)
    if any(model.problem for model in profiles):
        raise typer.Exit(1)


def _quantization(dtype: Dtype | None, devices: Sequence[str]) -> str | None:
    """The number format, if any. Raises ConfigError where no device has one."""
    if dtype is not None and LLAMA_CPP not in devices:
        raise ConfigError(f"--quantization {dtype.value}: expected {LLAMA_CPP} as the device or an engine")
    return None if dtype is None else dtype.value


def _say_what_is_measured(models: Sequence[str]) -> None:
    """Says that published models are measured by their shapes alone, as weights change no time."""
    from search.runs.importing import is_published

    for model in dict.fromkeys(models):
        if is_published(Path(model)):
            plain_console(stderr=True).print(
                f"{model}: random weights of its shapes are measured, in the number format of the "
                "measurement instead of its own",
                soft_wrap=True,
                markup=False,
            )


def compare(
    first: Annotated[
        str,
        typer.Argument(metavar="A", help=MODEL, show_default=False),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help=MODEL, show_default=False)],
    batch: Annotated[int, typer.Option(help="Batch size.", parser=whole_number(1))] = 1,
    context: Annotated[int, typer.Option(help="Tokens of context.", parser=whole_number(1))] = 256,
    rounds: Annotated[
        int, typer.Option(help="Fresh processes that measure each model.", parser=whole_number(3))
    ] = 6,
    threads: Threads = 1,
    device: MeasuredDevice = "cpu",
    backend: Backend = "auto",
    quantization: Quantization = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Decide whether B decodes faster than A. Both are measured in turns, in fresh processes."""
    from search.evaluation.comparing import compare as compared
    from search.runs.sources import architecture_of
    from search.view.comparison import print_comparison
    from search.view.profiles import profile_settings

    (a_name, a), (b_name, b) = (architecture_of(text, results) for text in (first, second))
    _say_what_is_measured((first, second))
    settings = profile_settings(
        batch_sizes=(batch,),
        contexts=(context,),
        threads=threads,
        quantization=_quantization(quantization, (device,)),
    )

    def on_round(number: int, a_ms: float, b_ms: float) -> None:
        if not as_json:
            console.print(f"round {number} of {rounds}: {a_ms:.4g} ms, {b_ms:.4g} ms", markup=False)

    comparison = compared(a, b, settings, device=device, backend=backend, rounds=rounds, on_round=on_round)
    if as_json:
        print_json(comparison.model_dump(mode="json"))
    else:
        print_comparison(console, (a_name, b_name), comparison)


def operators(device: DeviceName = "cpu", as_json: AsJson = False) -> None:
    """List every operator with its backends. Where one cannot be used here, the reason is printed."""
    from profiler.device.device import open_device
    from search.view.doctor import backend_rows

    rows = backend_rows(open_device(device))
    if as_json:
        print_json(rows)
        return
    names = tuple(rows[0])
    show(console, sheet(names, (tuple(row.values()) for row in rows), words=names))


def warm(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SPACE_OR_ARCH...", help="Run files, folders of runs, or models.", show_default=False
        ),
    ],
    batch: Annotated[
        list[str] | None,
        typer.Option(help="Batch sizes to prepare for, as in 1,8,64.", show_default="the run's, or 1,8"),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens of a sequence to prepare for.",
            show_default="the run's, or 1024",
            parser=whole_number(1),
        ),
    ] = None,
    device: DeviceName = "cuda:0",
    processes: Annotated[
        int | None,
        typer.Option(
            help="Processes that compile at once.", show_default="one a core", parser=whole_number(1)
        ),
    ] = None,
    results: Results = DEFAULT_RESULTS,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Compile and tune kernels before they are needed, in parallel. They are those of a space or a model."""
    import time
    from dataclasses import asdict

    from profiler.device.device import open_device
    from profiler.kernels.warm import warm as prepared
    from search.runs.warming import warm_jobs
    from search.view.warmed import print_warmed, print_warmed_total, shown_warming

    open_device(device)  # a missing device is one error here, instead of one for every job
    began = time.monotonic()
    work = warm_jobs(
        sources,
        batches=whole_numbers("--batch", batch or []) or None,
        tokens=tokens,
        device=device,
        results=results,
        changes=changes or (),
    )
    outcomes = []
    with shown_warming(plain_console(stderr=True), len(work)) as progress:
        for outcome in prepared(work, processes=processes, on_compiled=progress.compiled):
            outcomes.append(outcome)
            progress.ran()
            if not as_json and not outcome.shares:
                print_warmed(console, outcome)
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])
    else:
        print_warmed_total(console, outcomes, time.monotonic() - began)
    if any(outcome.problem for outcome in outcomes):
        raise typer.Exit(1)


def doctor(results: Results = DEFAULT_RESULTS, as_json: AsJson = False) -> None:
    """Print packages with versions, devices, and what can be used."""
    from search.view.doctor import examine

    report = examine(results)
    if as_json:
        print_json(report)
        return
    _print_mapping({key: report[key] for key in ("python", "platform", "cores")})
    _print_mapping({"results": report["results"]["folder"], "writable": report["results"]["writable"]})
    _print_mapping({name: version or "not installed" for name, version in report["packages"].items()})
    for device in report["devices"]:
        state = "usable" if device["usable"] else f"not usable: {device['reason']}"
        details = ", ".join(
            f"{key} {value}" for key, value in device.items() if key not in ("device", "usable", "reason")
        )
        _print_mapping({device["device"]: f"{state}{', ' + details if details else ''}"})


def _print_mapping(mapping: dict[str, Any]) -> None:
    for key, value in mapping.items():
        console.print(f"{key:<24}{value}", soft_wrap=True, markup=False)
