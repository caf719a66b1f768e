"""What `frontrunner train` does: one architecture trained as a run's proxy, without a run."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from operators import Architecture
from operators.base.errors import ConfigError, one_line
from profiler.device.ceilings import matrix_product_flops_per_s
from profiler.device.device import memory_errors, open_device
from profiler.device.lock import shared
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.task_settings import TaskScore, TaskSettings
from proxy_train.tasks import train_task
from proxy_train.text.data_settings import DataSettings
from proxy_train.text.prepare import prepare
from proxy_train.text.source_record import SourceRecord
from proxy_train.train import train


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
