"""One candidate or one architecture in full, for a terminal or a script."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from operators import Architecture
from operators.errors import ConfigError, one_line
from profiler.bandwidth import matrix_product_flops_per_s
from profiler.device import memory_errors, open_device
from profiler.lock import shared
from proxy_train.data import prepare
from proxy_train.tasks import TaskScore, TaskSettings, train_task
from proxy_train.train import ProxyScore, ProxySettings, train
from search import config as config_module
from search.config import RunConfig
from search.export import provenance
from search.ledger import Entry, Ledger
from search.profiles import print_conditions, print_remarks, timings
from search.run_folder import RunFolder
from search.tables import formatted


def candidate_json(folder: RunFolder, ledger: Ledger, entry: Entry) -> dict[str, Any]:
    """Everything that the ledger has on a candidate."""
    return {
        "architecture": entry.architecture.model_dump(mode="json"),
        "shorthand": entry.architecture.shorthand,
        "evaluation": entry.evaluation.model_dump(mode="json") if entry.evaluation else None,
        "again": entry.again.model_dump(mode="json") if entry.again else None,
        "provenance": provenance(folder, ledger, entry),
    }


def print_candidate(console: Console, folder: RunFolder, entry: Entry) -> None:
    evaluation, architecture = entry.evaluation, entry.architecture
    parents = f", parents {', '.join(map(str, entry.parents))}" if entry.parents else ""
    status = evaluation.status if evaluation else "unfinished"
    console.print(
        f"candidate {entry.number} of {folder.name} ({entry.origin}{parents}): {status}", soft_wrap=True
    )
    if evaluation and evaluation.reason:
        console.print(evaluation.reason, soft_wrap=True, markup=False)
    for audit in evaluation.audits if evaluation else ():
        console.print(
            f"let through gate {audit.gate} for an audit: {audit.reason}", soft_wrap=True, markup=False
        )
    console.print(
        f"{architecture.shorthand}\nwidth {architecture.width}, depth {architecture.depth}, digest {architecture.digest()[:12]}"
    )
    layers = Table(header_style="bold")
    for name in ("layer", "operator", "shape", "norm"):
        layers.add_column(name)
    for number, layer in enumerate(architecture.layers):
        values = layer.shape.model_dump().items()
        shape = ", ".join(
            f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in values
        )
        layers.add_row(str(number), layer.operator, shape, f"{layer.norm} {layer.norm_position}")
    console.print(layers)
    if evaluation is None:
        return
    for name, value in evaluation.metrics.items():
        console.print(f"{name:<26}{formatted(name, value)}", markup=False)
    if evaluation.each_profile:
        titled = [
            (f"{entry.number} {kind}".strip(), profile) for kind, profile in evaluation.each_profile.items()
        ]
        console.print(timings(titled))
        print_remarks(console, titled)
        for kind, profile in evaluation.each_profile.items():
            print_conditions(console, profile, kind)
    if evaluation.proxy is not None:
        score = evaluation.proxy
        console.print(
            f"trained on {score.tokens:,} tokens in {score.seconds:.1f} s ({score.tokens_per_s:,.0f} tokens/s) with seed {score.seed}; "
            f"loss {score.loss:.4f}, a unigram model has {score.unigram_loss:.4f}",
            soft_wrap=True,
        )
    if entry.first is not None and entry.again is not None and entry.again.evaluation is not None:
        second = entry.again.evaluation
        losses = [found.metrics["loss"] for found in (entry.first, second) if "loss" in found.metrics]
        said = (
            " and ".join(f"{loss:.4f}" for loss in losses)
            if second.status == "ok"
            else f"{second.status}: {second.reason}"
        )
        console.print(
            f"evaluated twice, with seeds {entry.first.seed} and {second.seed}, metrics are means; loss {said}",
            soft_wrap=True,
        )
    if evaluation.proxy_width is not None:
        console.print(f"trained at width {evaluation.proxy_width}, measured at {architecture.width}")
    for task in evaluation.tasks:
        console.print(_task_line(task), soft_wrap=True)
    for label, mapping in (
        ("backends", evaluation.backends),
        ("seconds", evaluation.seconds),
        ("versions", evaluation.versions),
    ):
        listed = ", ".join(f"{key} {formatted(key, value)}" for key, value in mapping.items())
        console.print(f"{label}: {listed}", soft_wrap=True, markup=False)
    if evaluation.traceback:
        console.print(evaluation.traceback, markup=False, soft_wrap=True)


def train_once(
    path: Path,
    *,
    config_path: Path | None,
    tokens: int | None,
    seed: int,
    device: str,
    checkpoint: Path | None,
    console: Console | None,
) -> ProxyScore:
    """Trains the architecture of a file as a run would, and shows how it goes. Raises our errors."""
    architecture = Architecture.load(path)
    config = config_module.load(config_path) if config_path else RunConfig()
    try:
        proxy = ProxySettings.model_validate(
            {**config.proxy.model_dump(), **({"tokens": tokens} if tokens is not None else {})}
        )
    except ValidationError as error:
        raise ConfigError(one_line(error)) from None
    opened = open_device(device)
    corpus = prepare(config.data)
    every = max(1, proxy.steps // 10)

    def on_step(step: int, loss: float) -> None:
        if console is not None and step % every == 0:
            console.print(f"step {step}/{proxy.steps}  training loss {loss:.4f}")

    with shared(device) as give_way, memory_errors():
        score = train(
            architecture,
            corpus,
            proxy,
            seed=seed,
            device=device,
            on_step=on_step,
            pause=give_way,
            checkpoint=checkpoint,
        ).score
    if console is not None:
        for budget in score.budgets:
            console.print(
                f"after {budget.tokens:,} tokens: validation loss {budget.loss:.4f}, {budget.bits_per_byte:.4f} bits per byte"
            )
        console.print(
            f"validation loss {score.loss:.4f} nats per token; the unigram entropy of the data is {score.unigram_loss:.4f}"
        )
        console.print(f"perplexity {score.perplexity:.2f}, {score.bits_per_byte:.4f} bits per byte")
        with shared(device):
            share = score.flops_per_s / matrix_product_flops_per_s(opened)
        console.print(
            f"{score.tokens_per_s:,.0f} tokens/s, {share:.0%} of the rate of a matrix product here; {score.dtype}, {score.execution}"
        )
        console.print(f"{score.seconds:.1f} s, of which {score.startup_s:.1f} s until kernels were ready")
    return score


def task_settings(config_path: Path | None, names: str | None) -> TaskSettings:
    """The tasks of a run file, or those named instead. Raises ConfigError."""
    settings = (config_module.load(config_path) if config_path else RunConfig()).tasks
    if names is None:
        return settings
    try:
        return TaskSettings.model_validate(
            {**settings.model_dump(), "names": [name.strip() for name in names.split(",")]}
        )
    except ValidationError as error:
        raise ConfigError(f"tasks: {one_line(error)}") from None


def train_on_tasks(
    path: Path, settings: TaskSettings, *, seed: int, device: str, console: Console | None
) -> tuple[TaskScore, ...]:
    """Trains the architecture of a file on every task of `settings`, and shows each score. Raises our errors."""
    architecture, scores = Architecture.load(path), []
    for name in settings.names:
        with shared(device), memory_errors():
            scores.append(train_task(name, architecture, settings, seed=seed, device=device))
        if console is not None:
            console.print(_task_line(scores[-1]), soft_wrap=True)
    return tuple(scores)


def _task_line(score: TaskScore) -> str:
    return (
        f"{score.task}: accuracy {score.accuracy:.3f}, of a guess {score.chance:.3f}, "
        f"after {score.tokens:,} tokens in {score.seconds:.1f} s"
    )
