"""What `frontrunner train` does: one model trained outside a search, for its score or to be kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from operators import Architecture
from operators.base.errors import ConfigError, one_line
from profiler.device.ceilings import matrix_product_flops_per_s
from profiler.device.device import open_device
from profiler.device.lock import shared
from profiler.device.memory import memory_errors
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.task_settings import TaskScore, TaskSettings
from proxy_train.tasks import train_task
from proxy_train.text.data_settings import DataSettings
from proxy_train.text.prepare import prepare
from proxy_train.text.source_record import SourceRecord
from proxy_train.train import train
from search.runs.kept_training import KeptTraining, train_into
from search.runs.training_start import beginning


def with_tokens(proxy: ProxySettings, tokens: int | None) -> ProxySettings:
    """The settings with another budget of tokens; unchanged for None. Raises ConfigError."""
    if tokens is None:
        return proxy
    try:
        return ProxySettings.model_validate({**proxy.model_dump(), "tokens": tokens})
    except ValidationError as error:
        raise ConfigError(one_line(error)) from None


def with_names(tasks: TaskSettings, names: Sequence[str] | None) -> TaskSettings:
    """The settings with other tasks; unchanged for None. Raises ConfigError."""
    if names is None:
        return tasks
    try:
        return TaskSettings.model_validate({**tasks.model_dump(), "names": list(names)})
    except ValidationError as error:
        raise ConfigError(f"tasks: {one_line(error)}") from None


def train_on_text(
    architecture: Architecture,
    data: DataSettings,
    proxy: ProxySettings,
    *,
    seed: int,
    device: str,
    checkpoint: Path | None,
    on_source: Callable[[SourceRecord], None],
    on_step: Callable[[int, float], None],
) -> ProxyScore:
    """Trains an architecture as a run would.

    checkpoint: file to go on from after a kill; None writes none.
    on_source: hears which files of the text are read, before any is.
    on_step: hears the number of each step and its loss (nats per token).

    Raises our errors.
    """
    open_device(device)  # says that there is none before the text is prepared
    corpus = prepare(data, on_source=on_source)
    with shared(device) as give_way, memory_errors():
        return train(
            architecture,
            corpus,
            proxy,
            seed=seed,
            device=device,
            on_step=on_step,
            pause=give_way,
            checkpoint=checkpoint,
        ).score


@dataclass(frozen=True)
class Kept:
    """A training that was kept.

    path: its folder.
    training: what was trained.
    score: how well the model learned.
    """

    path: Path
    training: KeptTraining
    score: ProxyScore


def train_and_keep(
    name: str,
    to: Path,
    *,
    tokens: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    config: Path | None = None,
    data: Sequence[str] = (),
    fresh: bool = False,
    results: Path,
    on_source: Callable[[SourceRecord], None] = lambda record: None,
    on_begin: Callable[[KeptTraining, str], None] = lambda training, lacking: None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Kept:
    """Trains a model from its weights, or from random ones where it has none, and keeps it in a folder.

    The same call goes on after any interruption.

    name, config, data, fresh, results: see `training_start.beginning`.
    to: a new or empty folder, or the one of this training.
    tokens: to train on; None for those of the proxy section.
    on_begin: hears what is trained before it is, and why a candidate begins without its weights.
    on_source, on_step: see `train_on_text`.

    Raises our errors.
    """
    if seed < 0:
        raise ConfigError(f"seed: expected at least 0, got {seed}")
    open_device(device)  # says that there is none before anything is read
    begins = beginning(name, results, config=config, data=data, fresh=fresh)
    training = begins.training(tokens=tokens, seed=seed)
    corpus = prepare(begins.data, on_source=on_source)
    on_begin(training, begins.lacking)
    return Kept(to, training, train_into(to, training, corpus, device=device, on_step=on_step))


def share_of_ceiling(score: ProxyScore, device: str) -> float:
    """The training's floating-point operations a second, relative to a matrix product's on the device."""
    with shared(device):
        return score.flops_per_s / matrix_product_flops_per_s(open_device(device))


def train_on_tasks(
    architecture: Architecture, tasks: TaskSettings, *, seed: int, device: str
) -> Iterator[TaskScore]:
    """Trains an architecture on every task, each from the start. Raises our errors."""
    for name in tasks.names:
        with shared(device), memory_errors():
            score = train_task(name, architecture, tasks, seed=seed, device=device)
        yield score
