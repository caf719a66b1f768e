"""Trains and measures the architectures of an experiment, each once.

The depth-width law and the studies share this.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import Field, ValidationError
from pydantic_core import to_jsonable_python
from rich.console import Console

from operators import Architecture, VisionLanguage
from operators.base.errors import ConfigError, one_line
from operators.base.value import Value
from operators.cost import cost, parameters
from profiler.device.device import open_device
from profiler.device.gpus import devices
from profiler.device.lock import shared
from profiler.device.memory import give_back_memory, memory_errors
from profiler.kernels.warm import Workload, jobs, warm
from profiler.metrics import MetricName
from profiler.process.worker import ProfilingWorker
from profiler.profile import ProfileSettings
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.text.corpus import Corpus
from proxy_train.text.data_settings import DataSettings
from proxy_train.text.prepare import prepare
from proxy_train.train import train
from search.config import run as config_module
from search.config.changes import changed
from search.evaluation.failures import CANDIDATE_ERRORS, Failure, failure_of
from search.evaluation.profiling import profiled
from search.evaluation.settled import beside_others
from search.studies import experiment_store
from search.studies.experiment_store import Latency, Store, Training
from search.view.text_read import print_source

S = TypeVar("S", bound="ExperimentSettings")
Tokens = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=8, le=65_536)]


class ExperimentSettings(Value):
    """The settings that every experiment has for its trainings and measurements.

    seeds: of weights and batches; each training is done once with each seed.
    device: where the experiment trains and measures. `cuda` is every GPU that is like the first one, and the
        first one measures. `cuda:N` is that GPU alone.
    per_device: trainings at the same time on each device, each in a process of its own. Small models leave
        most of a large GPU idle. Losses are as in trainings one after the other. Nothing is measured beside
        them.
    deadline_s: seconds after which one measurement is given up.
    data, proxy, profile: the sections of those names of a run's configuration.
    """

    kind: ClassVar[str]
    unit: ClassVar[str] = "tokens"
    """What the `tokens` of its trainings count."""
    grows: ClassVar[frozenset[str]] = frozenset({"seeds", "deadline_s", "per_device"})
    """Keys that may change between two runs of one experiment: the records that exist stay valid."""

    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1)] = (0,)
    device: str = "cpu"
    per_device: Annotated[int, Field(ge=1, le=16)] = 1
    deadline_s: Annotated[float, Field(gt=0)] = 900.0
    data: DataSettings = DataSettings()
    proxy: ProxySettings = ProxySettings()
    profile: ProfileSettings = ProfileSettings()

    def fixed(self) -> dict[str, Any]:
        """Returns the settings that every result depends on, as JSON can hold them.

        Left out are a result's own label, tokens and seed, and the text, whose digest is compared instead.
        """
        found = self.model_dump(mode="json", exclude={"data", *self.grows})
        found["proxy"].pop("tokens")
        return {"kind": self.kind, **found}

    def trained_with(self, tokens: int) -> ProxySettings:
        """Returns the proxy settings with another budget of `tokens`. Raises ConfigError."""
        try:
            return ProxySettings.model_validate({**self.proxy.model_dump(), "tokens": tokens})
        except ValidationError as error:
            raise ConfigError(one_line(error)) from None


class Trainable(Protocol):
    """A training that an experiment asks for: of a language model, as `Wanted`, or of one that sees."""

    @property
    def key(self) -> tuple[str, int, int]:
        """The key of its record."""

    @property
    def work(self) -> int:
        """How long it takes beside other trainings of the experiment, in FLOPs of any kind."""

    def result(self, corpus: Corpus, *, device: str) -> dict[str, Any]:
        """Makes the training, and returns those fields of its record that it found.

        Raises our errors, MemoryError and torch.OutOfMemoryError.
        """

    def training(self, *, seconds: float, **found: Any) -> Training:
        """Returns the record of this training.

        seconds: wall time.
        found: the status and the fields that belong to it.
        """


@dataclass(frozen=True)
class Wanted:
    """A training of a language model.

    label: names the architecture, and the settings where the experiment trains it with several.
    architecture: what is trained.
    settings: what it is trained with.
    seed: of weights and batches.
    """

    label: str
    architecture: Architecture
    settings: ProxySettings
    seed: int

    @property
    def key(self) -> tuple[str, int, int]:
        """The key of its record."""
        return self.label, self.settings.tokens, self.seed

    @property
    def flops(self) -> int:
        """Forward FLOPs of one sequence."""
        return cost(self.architecture, batch=1, context=self.settings.sequence_length).prefill_flops

    @property
    def work(self) -> int:
        """As for Trainable."""
        return self.flops * self.settings.tokens

    def result(self, corpus: Corpus, *, device: str) -> dict[str, Any]:
        """As for Trainable."""
        score = self.train(corpus, device=device)
        return {"loss": score.loss, "tokens_per_s": score.tokens_per_s}

    def train(self, corpus: Corpus, *, device: str) -> ProxyScore:
        """Makes the training. Raises what `train_once` raises."""
        return train_once(self.architecture, corpus, self.settings, seed=self.seed, device=device)

    def training(self, *, seconds: float, **found: Any) -> Training:
        """As for Trainable."""
        label, tokens, seed = self.key
        return Training(
            label=label,
            tokens=tokens,
            seed=seed,
            seconds=seconds,
            params=parameters(self.architecture),
            flops=self.flops,
            **found,
        )


@dataclass(frozen=True)
class Session:
    """An experiment that is under way in this process.

    devices: the devices that train, each as often as it makes trainings at the same time. The first one
        measures too.
    """

    store: Store
    settings: ExperimentSettings
    devices: tuple[str, ...]
    corpus: Corpus
    worker: ProfilingWorker
    console: Console


def filled(written: Mapping[str, Any], schema: type[Value]) -> dict[str, Any]:
    """Returns settings that an earlier version wrote, with the defaults of the keys that it did not know.

    written: as JSON holds them.
    schema: the class of the settings.
    """
    known = dict(written)
    for name, field in schema.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if name not in written and not field.is_required():
            known[name] = to_jsonable_python(default)
        elif isinstance(default, Value) and isinstance(written.get(name), dict):
            known[name] = filled(written[name], type(default))
    return known


def load(kind: type[S], path: Path, changes: Sequence[str] = ()) -> S:
    """Reads the YAML file of an experiment. Raises ConfigError.

    changes: of its keys, as in `proxy.tokens=2e6`.
    """
    data = changed(config_module.plain(path), changes)
    return parsed(kind, {} if data is None else data, where=str(path))


def parsed(kind: type[S], data: Any, *, where: str) -> S:
    """Validated settings from plain data. Raises ConfigError, one line that begins with `where`."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None


@contextmanager
def session(
    settings: ExperimentSettings,
    *,
    results: Path,
    name: str,
    console: Console,
    further: Callable[[Corpus], Mapping[str, Any]] = lambda corpus: {},
) -> Iterator[Session]:
    """Prepares the text and takes the experiment's folder; prints how to continue after an interruption.

    further: prepares what the experiment needs beside the text, and returns what of it results depend on.

    Raises our errors.
    """
    settings = settings.model_copy(update={"data": settings.data.absolute()})
    usable = devices(settings.device)
    corpus = prepare(settings.data, on_source=lambda record: print_source(console, record))
    fixed = settings.fixed() | {"text": corpus.digest, "device": usable[0], **further(corpus)}
    everything = settings.model_dump(mode="json")
    with (
        experiment_store.opened(
            results,
            name,
            settings=everything,
            fixed=fixed,
            filled=partial(filled, schema=type(settings)),
        ) as store,
        ProfilingWorker(usable[0]) as worker,
    ):
        try:
            yield Session(store, settings, usable * settings.per_device, corpus, worker, console)
        except KeyboardInterrupt:
            done = len(store.trainings)
            console.print(
                f"\ninterrupted: {done} trainings are recorded in {store.folder.path}; the "
                "same command goes on",
                soft_wrap=True,
            )
            raise


def train_once(
    architecture: Architecture, corpus: Corpus, settings: ProxySettings, *, seed: int, device: str
) -> ProxyScore:
    """Trains a language model, beside other trainings where there is memory for that.

    Raises what `train` raises, MemoryError and torch.OutOfMemoryError.
    """

    def attempt(*, alone: bool) -> ProxyScore:
        with shared(device), memory_errors():
            score = train(architecture, corpus, settings, seed=seed, device=device, spares_memory=alone).score
            give_back_memory()
        return score

    return beside_others(device, attempt)


def prepare_kernels(at: Session, architectures: Iterable[Architecture], *, measured: bool = False) -> None:
    """On a GPU, compiles and tunes the kernels of an experiment in parallel, before they are needed.

    Without it the trainings, and the measurements if `measured`, would compile them one after the other.
    """
    if open_device(at.devices[0]).torch_device.type == "cpu":
        return
    proxy, profile = at.settings.proxy, at.settings.profile
    decoding = (
        tuple((batch, context) for batch in profile.batch_sizes for context in profile.contexts)
        if measured
        else ()
    )
    workload = Workload(
        training=((proxy.micro_batch_size or proxy.batch_size, proxy.sequence_length),), decoding=decoding
    )
    began, work = time.perf_counter(), jobs(architectures, workload, at.devices[0])
    for done in warm(work):
        if done.problem:
            at.console.print(f"{done.operator} {done.shape}: {done.problem}", soft_wrap=True, markup=False)
    at.console.print(f"kernels for {len(work)} shapes of operators: {time.perf_counter() - began:.0f} s")


def trained(at: Session, wanted: Trainable) -> Training:
    """Returns the recorded training; where there is none, trains on the first device and records it."""
    known = at.store.trainings.get(wanted.key)
    if known is not None:
        return known
    made = outcome(wanted, at.corpus, device=at.devices[0])
    record(at, made)
    return made


def outcome(wanted: Trainable, corpus: Corpus, *, device: str) -> Training:
    """Trains; the record of an architecture that cannot be trained has the reason.

    Raises what is not the architecture's fault.
    """
    began = time.perf_counter()
    try:
        result = {"status": "ok", **wanted.result(corpus, device=device)}
    except CANDIDATE_ERRORS as error:
        result = failure_of(error).model_dump()
    if result["status"] != "ok":
        give_back_memory()  # the error, which held the model, is gone
    return wanted.training(seconds=time.perf_counter() - began, **result)


def record(at: Session, made: Training) -> None:
    """Writes a training to the store and prints its result. Raises RunError."""
    at.store.add(made)
    said = f"loss {made.loss:.4f}" if made.loss is not None else f"{made.status}: {made.reason}"
    if (right := made.scores.get("answer_accuracy")) is not None:
        said += f", {right:.1%} of answers right"
    amount = f"{made.tokens:>12,} {at.settings.unit}"
    line = f"{made.label:<24} {amount}, seed {made.seed}: {said}, {made.seconds:.1f} s"
    at.console.print(line, soft_wrap=True, markup=False)


def measured(
    at: Session,
    label: str,
    architecture: Architecture | VisionLanguage,
    metrics: Sequence[str] = ("decode_ms",),
) -> Latency:
    """Returns the recorded latency of a label; where there is none, measures and records it.

    A tainted latency is measured again whenever the experiment continues.

    metrics: the times that are recorded.
    """
    known = at.store.latencies.get(label)
    if known is not None and not known.tainted:
        return known
    profile = profiled(
        at.worker, architecture, at.settings.profile, seed=0, deadline_s=at.settings.deadline_s
    )
    if isinstance(profile, Failure):
        record = Latency(label=label, problem=f"{profile.status}: {profile.reason}")
    else:
        times = {
            name: value
            for name, value in profile.metrics().items()
            if MetricName.parse(name).metric in metrics
        }
        taints = profile.taints()
        tainted = tuple(dict.fromkeys(taints[name] for name in times if name in taints))
        record = Latency(label=label, decode_ms=times, tainted=tainted)
    at.store.add(record)
    said = record.problem or ", ".join(f"{name} {value:.4g}" for name, value in record.decode_ms.items())
    at.console.print(
        f"{label:<24} {said}{' (tainted)' if record.tainted else ''}", soft_wrap=True, markup=False
    )
    return record
