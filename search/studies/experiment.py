"""Trains and measures the architectures of an experiment, each once: what the depth-width law and the studies have in common."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import torch
from pydantic import Field, ValidationError
from rich.console import Console

from operators import Architecture
from operators.errors import BackendError, ConfigError, DivergedError, one_line
from operators.value import Value
from profiler.cost import cost, parameters
from profiler.device import memory_errors, open_device
from profiler.lock import shared
from profiler.profile import ProfileSettings
from profiler.warm import Workload, jobs, warm
from profiler.worker import ProfilingWorker
from proxy_train.data import Corpus, DataSettings, prepare
from proxy_train.train import ProxyScore, ProxySettings, train
from search import config as config_module
from search.profiling import Failure, profiled
from search.studies import experiment_store
from search.studies.experiment_store import Latency, Store, Training

S = TypeVar("S", bound="ExperimentSettings")
Tokens = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=8, le=65_536)]


class ExperimentSettings(Value):
    """What every experiment says of its trainings and measurements; the last three are the sections of a run.

    seeds: of weights and batches; each training is done once with each. deadline_s: seconds after which one measurement is given up.
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
        """Everything that a result depends on besides its own label, tokens and seed, in JSON's terms."""
        found = self.model_dump(mode="json", exclude=set(self.grows))
        found["proxy"].pop("tokens")
        return {"kind": self.kind, **found}

    def trained_with(self, tokens: int) -> ProxySettings:
        """The proxy settings at another budget. Raises ConfigError."""
        try:
            return ProxySettings.model_validate({**self.proxy.model_dump(), "tokens": tokens})
        except ValidationError as error:
            raise ConfigError(one_line(error)) from None


@dataclass(frozen=True)
class Session:
    """An experiment that is under way in this process."""

    store: Store
    settings: ExperimentSettings
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
    """Prepares the text, takes the experiment's folder, and says how to go on where it is interrupted. Raises our errors."""
    settings = settings.model_copy(update={"data": settings.data.absolute()})
    open_device(settings.device)
    corpus = prepare(settings.data)
    fixed = settings.fixed() | {"text": corpus.digest}
    everything = settings.model_dump(mode="json")
    with (
        experiment_store.opened(results, name, settings=everything, fixed=fixed) as store,
        ProfilingWorker(settings.device) as worker,
    ):
        try:
            yield Session(store, settings, corpus, worker, console)
        except KeyboardInterrupt:
            done = len(store.trainings)
            console.print(f"\ninterrupted: {done} trainings are recorded in {store.folder.path}; the same command goes on", soft_wrap=True)
            raise


def train_once(architecture: Architecture, corpus: Corpus, settings: ProxySettings, *, seed: int, device: str) -> ProxyScore:
    """Every training of every experiment is this one. Raises what `train` raises, MemoryError and torch.OutOfMemoryError."""
    with shared(device), memory_errors():
        score = train(architecture, corpus, settings, seed=seed, device=device).score
        torch.cuda.empty_cache()  # what training used is for the next measurement, which is made by another process
    return score


def prepare_kernels(at: Session, architectures: Iterable[Architecture], *, measured: bool = False) -> None:
    """On a GPU, compiles and tunes in parallel what the trainings, and measurements if there are any, would one after the other."""
    if open_device(at.settings.device).torch_device.type == "cpu":
        return
    proxy, profile = at.settings.proxy, at.settings.profile
    decoding = tuple((batch, context) for batch in profile.batch_sizes for context in profile.contexts) if measured else ()
    workload = Workload(training=((proxy.micro_batch_size or proxy.batch_size, proxy.sequence_length),), decoding=decoding)
    began, work = time.perf_counter(), jobs(architectures, workload, at.settings.device)
    for done in warm(work):
        if done.problem:
            at.console.print(f"{done.operator} {done.shape}: {done.problem}", soft_wrap=True, markup=False)
    at.console.print(f"kernels for {len(work)} shapes of operators: {time.perf_counter() - began:.0f} s")


def trained(at: Session, label: str, architecture: Architecture, *, tokens: int, seed: int, proxy: ProxySettings | None = None) -> Training:
    """The training of that label, budget and seed: the recorded one, or one that is made and recorded now.

    proxy: other settings than the experiment's own, of the same budget; the label has to say so.
    """
    known = at.store.trainings.get((label, tokens, seed))
    if known is not None:
        return known
    settings, began = proxy or at.settings.trained_with(tokens), time.perf_counter()
    found: dict[str, Any]
    try:
        score = train_once(architecture, at.corpus, settings, seed=seed, device=at.settings.device)
        found = {"status": "ok", "loss": score.loss, "tokens_per_s": score.tokens_per_s}
    except DivergedError as error:
        found = {"status": "diverged", "reason": str(error)}
    except BackendError as error:
        found = {"status": "unbuildable", "reason": str(error)}
    except (MemoryError, torch.OutOfMemoryError) as error:
        found = {"status": "out_of_memory", "reason": " ".join(str(error).split())[:500]}
    record = Training(
        label=label,
        tokens=tokens,
        seed=seed,
        seconds=time.perf_counter() - began,
        params=parameters(architecture),
        flops=cost(architecture, batch=1, context=settings.sequence_length).prefill_flops,
        **found,
    )
    at.store.add(record)
    said = f"loss {record.loss:.4f}" if record.loss is not None else f"{record.status}: {record.reason}"
    at.console.print(f"{label:<24} {tokens:>12,} tokens, seed {seed}: {said}, {record.seconds:.1f} s", soft_wrap=True, markup=False)
    return record


def measured(at: Session, label: str, architecture: Architecture) -> Latency:
    """The decode latency of the architecture of that label: the recorded one, or one that is measured and recorded now."""
    known = at.store.latencies.get(label)
    if known is not None:
        return known
    profile = profiled(at.worker, architecture, at.settings.profile, seed=0, deadline_s=at.settings.deadline_s)
    if isinstance(profile, Failure):
        record = Latency(label=label, problem=f"{profile.status}: {profile.reason}")
    else:
        times = {name: value for name, value in profile.metrics().items() if name.partition("@")[0] == "decode_ms"}
        record = Latency(label=label, decode_ms=times, tainted=profile.tainted)
    at.store.add(record)
    said = record.problem or ", ".join(f"{name} {value:.4g}" for name, value in record.decode_ms.items())
    at.console.print(f"{label:<24} {said}{' (tainted)' if record.tainted else ''}", soft_wrap=True, markup=False)
    return record
