"""`frontrunner train`: trains one model, to see its score or to keep it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from operators.base.errors import ConfigError
from search.cli.arguments import several
from search.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Changes,
    DeviceName,
    Model,
    Results,
    plain_console,
    print_json,
    whole_number,
)

if TYPE_CHECKING:
    from search.runs.kept_training import KeptTraining

console = plain_console()

PROGRESS_LINES = 10  # of a training


def train(
    architecture: Model,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Run file, or a shipped name, whose data and proxy sections to use.",
            show_default="the model's own with --to, else the defaults",
        ),
    ] = None,
    changes: Changes = None,
    tokens: Annotated[
        int | None,
        typer.Option(help="Token budget.", show_default="the proxy section's", parser=whole_number(1)),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder to keep the model in; the same command goes on from it after a kill. "
            "A model with weights is trained further.",
            show_default="nothing is kept",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="With --to: file or folder of text to train on; may be repeated.",
            show_default="the data section's",
        ),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="With --to: begin with random weights even if the model has its own."),
    ] = False,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            help="Synthetic tasks to train on as well, as in recall,copy.", show_default="the tasks section's"
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of weights and batches.", parser=whole_number(0, 2**63 - 1))
    ] = 0,
    device: DeviceName = "cpu",
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to go on from after a kill.", show_default="none is written")
    ] = None,
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Train one model as the proxy does, and print its score. With --to, keep the model."""
    if to is None:
        for option, given in (("--data", data), ("--fresh", fresh)):
            if given:
                raise ConfigError(f"{option}: expected --to FOLDER with it")
        _score(architecture, config, changes, tokens, tasks, seed, device, checkpoint, results, as_json)
        return
    for option, refused in (("--tasks", tasks), ("--checkpoint", checkpoint), ("--set", changes)):
        if refused:
            raise ConfigError(f"{option}: expected no --to with it, got --to {to}")
    _keep(architecture, to, config, tokens, tuple(data or ()), fresh, seed, device, results, as_json)


def _keep(
    model: str,
    to: Path,
    config: Path | None,
    tokens: int | None,
    data: Sequence[str],
    fresh: bool,
    seed: int,
    device: str,
    results: Path,
    as_json: bool,
) -> None:
    from search.runs.training import share_of_ceiling, train_and_keep
    from search.view.candidate import print_score
    from search.view.text_read import print_source

    notices = plain_console(stderr=True) if as_json else console
    every, steps = 1, 0

    def on_begin(training: "KeptTraining", lacking: str) -> None:
        nonlocal every, steps
        steps = training.settings.steps
        every = max(1, steps // PROGRESS_LINES)
        begun = "random weights" if training.start is None else "its weights"
        why = f": {lacking}" if lacking else ""
        notices.print(f"{training.title}: {steps} steps from {begun}{why}", soft_wrap=True)

    def on_step(step: int, loss: float) -> None:
        if step % every == 0:
            notices.print(f"step {step}/{steps}  training loss {loss:.4f} nats/token")

    try:
        kept = train_and_keep(
            model,
            to,
            tokens=tokens,
            seed=seed,
            device=device,
            config=config,
            data=data,
            fresh=fresh,
            results=results,
            on_source=lambda record: print_source(notices, record),
            on_begin=on_begin,
            on_step=on_step,
        )
    except KeyboardInterrupt:
        plain_console(stderr=True).print(f"interrupted: the same command goes on from {to}", soft_wrap=True)
        raise typer.Exit(130) from None
    if as_json:
        print_json({**kept.score.model_dump(mode="json"), "folder": str(to)})
        return
    print_score(console, kept.score, share=share_of_ceiling(kept.score, device))
    console.print(
        f"kept in {to}: `frontrunner generate {to} TEXT` writes with it, `frontrunner export {to} "
        "--format huggingface --to NEW` exports it",
        soft_wrap=True,
    )


def _score(
    architecture: str,
    config: Path | None,
    changes: Sequence[str] | None,
    tokens: int | None,
    tasks: Sequence[str] | None,
    seed: int,
    device: str,
    checkpoint: Path | None,
    results: Path,
    as_json: bool,
) -> None:
    from search.config import run as config_module
    from search.config.changes import changed
    from search.runs import training
    from search.runs.sources import architecture_of
    from search.view.candidate import print_score, task_line
    from search.view.text_read import print_source

    if config is None:
        run = config_module.parse(changed({}, changes or ()), where="--set")
    else:
        run = config_module.load(config, changes or ())
    task_settings = training.with_names(run.tasks, None if tasks is None else several(tasks))
    proxy = training.with_tokens(run.proxy, tokens)
    _, model = architecture_of(architecture, results)
    every, notices = max(1, proxy.steps // PROGRESS_LINES), plain_console(stderr=True) if as_json else console

    def on_step(step: int, loss: float) -> None:
        if not as_json and step % every == 0:
            console.print(f"step {step}/{proxy.steps}  training loss {loss:.4f} nats/token")

    score = training.train_on_text(
        model,
        run.data,
        proxy,
        seed=seed,
        device=device,
        checkpoint=checkpoint,
        on_source=lambda record: print_source(notices, record),
        on_step=on_step,
    )
    if not as_json:
        print_score(console, score, share=training.share_of_ceiling(score, device))
    task_scores = []
    for task_score in training.train_on_tasks(model, task_settings, seed=seed, device=device):
        task_scores.append(task_score.model_dump(mode="json"))
        if not as_json:
            console.print(task_line(task_score), soft_wrap=True)
    if as_json:
        print_json({**score.model_dump(mode="json"), "tasks": task_scores})
