"""Trains and measures the architectures of an experiment, each once: what the depth-width law and the studies
have in common.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, ValidationError
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError, one_line
from operators.base.value import Value
from operators.cost import cost, parameters
from profiler.device.device import give_back_memory, memory_errors, open_device
from profiler.device.gpus import devices
from profiler.device.lock import shared
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
from search.evaluation.failures import CANDIDATE_ERRORS, Failure, failure_of
from search.evaluation.profiling import profiled
from search.studies import experiment_store
from search.studies.experiment_store import Latency, Store, Training
from search.view.text_read import print_source

S = TypeVar("S", bound="ExperimentSettings")
Tokens = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=8, le=65_536)]


class ExperimentSettings(Value):
    """What every experiment says of its trainings and measurements; the last three are the sections of a run.

    seeds: of weights and batches; each training is done once with each. device: where they are done; `cuda`
        is every GPU that is like the
    first one, which measures, and `cuda:N` that one alone. deadline_s: seconds after which one measurement is
    given up.
    """

    kind: ClassVar[str]
    grows: ClassVar[frozenset[str]] = frozenset({"seeds", "deadline_s"})
    """Keys that may change between two runs of one experiment: what is there already stays valid."""

    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1)] = (0,)
    device: str = "cpu"
    deadline_s: Annotated[float, Field(gt=0)] = 900.0
    data: DataSettings = DataSettings()
    proxy: ProxySettings = ProxySettings()
    profile: ProfileSettings = ProfileSettings()

    def fixed(self) -> dict[str, Any]:
        """Everything that a result depends on besides its own label, tokens and seed, and the text, in JSON's
        terms.
        """
        found = self.model_dump(mode="json", exclude={"data", *self.grows})
        found["proxy"].pop("tokens")
        return {"kind": self.kind, **found}

    def trained_with(self, tokens: int) -> ProxySettings:
        """The proxy settings at another budget. Raises ConfigError."""
        try:
            return ProxySettings.model_validate({**self.proxy.model_dump(), "tokens": tokens})
        except ValidationError as error:
            raise ConfigError(one_line(error)) from None


@dataclass(frozen=True)
class Wanted:
    """A training that an experiment asks for. label: which architecture, and which settings where it trains
    one with several.
    """

    label: str
    architecture: Architecture
    settings: ProxySettings
    seed: int

    @property
    def key(self) -> tuple[str, int, int]:
        """What its record is found by."""
        return self.label, self.settings.tokens, self.seed

    @property
    def flops(self) -> int:
        """Of one sequence, forward."""
        return cost(self.architecture, batch=1, context=self.settings.sequence_length).prefill_flops

    def training(self, *, seconds: float, **found: Any) -> Training:
        """What came of it. found: the status, and what belongs to that."""
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
    """An experiment that is under way in this process. devices: that train; the first one measures too."""

    store: Store
    settings: ExperimentSettings
    devices: tuple[str, ...]
    corpus: Corpus
    worker: ProfilingWorker
    console: Console


def load(kind: type[S], path: Path) -> S:
    """Reads the YAML file of an experiment. Raises ConfigError."""
    data = config_module.plain(path)
    return parsed(kind, {} if data is None else data, where=str(path))


def parsed(kind: type[S], data: Any, *, where: str) -> S:
    """Validated settings from plain data. Raises ConfigError, one line that begins with `where`."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None


@contextmanager
def session(settings: ExperimentSettings, *, results: Path, name: str, console: Console) -> Iterator[Session]:
    """Prepares the text, takes the experiment's folder, and says how to go on where it is interrupted.

    Raises our errors.
    """
    settings = settings.model_copy(update={"data": settings.data.absolute()})
    usable = devices(settings.device)
    corpus = prepare(settings.data, on_source=lambda record: print_source(console, record))
    fixed = settings.fixed() | {"text": corpus.digest, "device": usable[0]}
    everything = settings.model_dump(mode="json")
    with (
        experiment_store.opened(results, name, settings=everything, fixed=fixed) as store,
        ProfilingWorker(usable[0]) as worker,
    ):
        try:
            yield Session(store, settings, usable, corpus, worker, console)
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
    """Every training of every experiment is this one.

    Raises what `train` raises, MemoryError and torch.OutOfMemoryError.
    """
    with shared(device), memory_errors():
        score = train(architecture, corpus, settings, seed=seed, device=device).score
        give_back_memory()
    return score


def prepare_kernels(at: Session, architectures: Iterable[Architecture], *, measured: bool = False) -> None:
    """On a GPU, compiles and tunes in parallel what the trainings, and measurements if there are any, would
    one after the other.
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


def trained(at: Session, wanted: Wanted) -> Training:
    """The training that is recorded, or one that is made on the first device and recorded now."""
    known = at.store.trainings.get(wanted.key)
    if known is not None:
        return known
    made = outcome(wanted, at.corpus, device=at.devices[0])
    record(at, made)
    return made


def outcome(wanted: Wanted, corpus: Corpus, *, device: str) -> Training:
    """Trains; what cannot be trained has its reason. Raises what is not the architecture's fault."""
    began = time.perf_counter()
    try:
        score = train_once(wanted.architecture, corpus, wanted.settings, seed=wanted.seed, device=device)
        result = {"status": "ok", "loss": score.loss, "tokens_per_s": score.tokens_per_s}
    except CANDIDATE_ERRORS as error:
        result = failure_of(error).model_dump()
    if result["status"] != "ok":
        give_back_memory()  # the error, which held the model, is gone
    return wanted.training(seconds=time.perf_counter() - began, **result)


def record(at: Session, made: Training) -> None:
    """Writes a training and says what came of it. Raises RunError."""
    at.store.add(made)
    said = f"loss {made.loss:.4f}" if made.loss is not None else f"{made.status}: {made.reason}"
    line = f"{made.label:<24} {made.tokens:>12,} tokens, seed {made.seed}: {said}, {made.seconds:.1f} s"
    at.console.print(line, soft_wrap=True, markup=False)


def measured(at: Session, label: str, architecture: Architecture) -> Latency:
    """The decode latency of the architecture of that label: the recorded one, or one that is measured and
    recorded now.

    A tainted one is measured again whenever the experiment goes on.
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
            if MetricName.parse(name).metric == "decode_ms"
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
