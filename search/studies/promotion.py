"""Proves winners: candidates of a run, trained longer and with several seeds beside published designs.

Each rival is rescaled until its measured time is the candidate's, so that a lower loss is not paid for with
time. All models are trained from random weights, at full size, on the same batches of the run's text:

    frontrunner promote first --top 3 --against nemotron-flash-1b --tokens 5e6 --seeds 3

The results lie in the run's folder. Trainings and measurements that are recorded are not made again. Each
trained model has a folder there, as `frontrunner train --to` makes it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from operators import Architecture
from operators.base import shipped
from operators.base.errors import ArchitectureError, ConfigError, RunError
from operators.cost import cost, parameters
from profiler.device.memory import give_back_memory
from profiler.metrics import MetricName
from proxy_train.settings import ProxyScore
from proxy_train.text.corpus import Corpus
from search.config.run import RunConfig
from search.runs.entry import Entry
from search.runs.export import provenance
from search.runs.folder import RunFolder
from search.runs.frontier import best
from search.runs.kept_training import KeptTraining, train_into
from search.runs.ledger import Ledger
from search.runs.sources import architecture_of
from search.runs.status import opened
from search.studies import experiment, experiment_store
from search.studies.experiment import ExperimentSettings, Session, Wanted
from search.studies.experiment_store import Rescaled, Store
from search.studies.parallel import train_ahead
from search.studies.promoted import Member, Promotion, compared
from search.studies.rescaling import as_large, rescaled, sized

AGAINST = ("nemotron-flash-1b",)
FOLDER = "promoted"
TIMES = ("decode_ms", "prefill_ms")
# The largest factor between the times of a rival and its candidate: beyond it they are not compared.
FARTHEST = 1.5
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.]+")


class PromotionSettings(ExperimentSettings):
    """What `promote` compares.

    candidates: ids of the run's candidates.
    against: the rivals, as they were named.
    metric: the time that is made equal, as `decode_ms@b1`.

    profile measures that time alone.
    """

    kind: ClassVar[str] = "promotion"
    grows: ClassVar[frozenset[str]] = ExperimentSettings.grows | {
        "candidates",
        "against",
        "metric",
        "profile",
    }

    candidates: tuple[int, ...]
    against: tuple[str, ...]
    metric: str


@dataclass(frozen=True)
class _Kept(Wanted):
    """A training whose model is kept.

    to: its folder.
    kept: the same training, with where the model comes from.
    """

    to: Path
    kept: KeptTraining

    def train(self, corpus: Corpus, *, device: str) -> ProxyScore:
        score = train_into(self.to, self.kept, corpus, device=device)
        give_back_memory()
        return score


@dataclass(frozen=True)
class _Asked:
    """A model to train, before its result is known."""

    label: str
    architecture: Architecture
    candidate: int
    rival: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


def promote(
    run: str,
    *,
    results: Path,
    tokens: int,
    seeds: int = 3,
    top: int = 3,
    candidates: Sequence[int] = (),
    against: Sequence[str] = AGAINST,
    metric: str | None = None,
    device: str | None = None,
    name: str = FOLDER,
    console: Console,
) -> Promotion:
    """Trains and measures what has no record yet, and compares.

    run: its name or folder.
    tokens: of each training, at least those of the search's own.
    seeds: how many trainings each model has.
    top: how many candidates, if none is named: members of the frontier, first those without which its
        hypervolume would shrink the most.
    candidates: ids, in place of the first `top`.
    against: rivals: what names an architecture.
    metric: the time that is made equal; None for the first one among the run's objectives and constraints.
    device: where to train and measure; None for the run's.
    name: of the folder in the run's own.

    Raises our errors.
    """
    folder, ledger = opened(results, run)
    entries = ledger.entries()
    chosen = _chosen(folder, ledger, entries, top, candidates)
    settings = _settings(ledger.config, chosen, against, tokens, seeds, metric, device)
    designs = {text: architecture_of(text, results)[1] for text in settings.against}
    with experiment.session(settings, results=folder.path, name=name, console=console) as at:
        asked = _asked(at, settings, folder, ledger, chosen, designs)
        experiment.prepare_kernels(at, [one.architecture for one in asked])
        wanted = [_wanted(at, settings, one, folder, seed) for seed in settings.seeds for one in asked]
        train_ahead(at, wanted)
        for one in wanted:
            experiment.trained(at, one)
        return _promotion(folder, at.store, settings, asked)


def shown(run: str, *, results: Path, name: str = FOLDER) -> Promotion:
    """What the last `promote` of a run has found so far. Nothing is trained. Raises our errors."""
    folder, ledger = opened(results, run)
    if not (folder.path / name / experiment_store.SETTINGS).is_file():
        raise RunError(
            f"run {folder.name} has no promotion yet: `{folder.command('promote')} --tokens N` makes it"
        )
    store = experiment_store.read(folder.path, name, kind=PromotionSettings.kind)
    settings = experiment.parsed(PromotionSettings, store.settings, where=str(store.folder.path))
    entries = {entry.number: entry for entry in ledger.entries()}
    asked = []
    for number in settings.candidates:
        asked.append(_candidate(folder, ledger, entries[number]))
        for text in settings.against:
            sizes = [
                size for size in store.sizes.values() if (size.label, size.design) == (str(number), text)
            ]
            if sizes:
                design = architecture_of(text, results)[1]
                asked.append(_rival(ledger.config, number, text, design, sizes[-1], entries[number]))
    return _promotion(folder, store, settings, asked)


def _chosen(
    folder: RunFolder, ledger: Ledger, entries: Sequence[Entry], top: int, numbers: Sequence[int]
) -> list[Entry]:
    known = {entry.number: entry for entry in entries}
    if unknown := [number for number in numbers if number not in known]:
        expected = f"expected 0 to {len(known) - 1}" if known else "it has none yet"
        raise RunError(f"run {folder.name} has no candidate {unknown[0]}: {expected}")
    if ledger.config.vision is not None:
        raise RunError(f"run {folder.name} has models that see: expected language models")
    if not numbers and top < 1:
        raise ConfigError(f"top: expected at least 1, got {top}")
    if numbers:
        return [known[number] for number in dict.fromkeys(numbers)]
    found = best(entries, ledger.config.parsed_objectives(), top)
    if not found:
        raise RunError(
            f"run {folder.name} has no frontier: none of its {len(entries)} candidates has every objective"
        )
    return found


def _settings(
    config: RunConfig,
    chosen: Sequence[Entry],
    against: Sequence[str],
    tokens: int,
    seeds: int,
    metric: str | None,
    device: str | None,
) -> PromotionSettings:
    if tokens < config.proxy.tokens:
        raise ConfigError(
            f"--tokens: expected at least the search's own {config.proxy.tokens:,}, got {tokens:,}"
        )
    time = _time(config, metric)
    point = {
        "batch_sizes": (time.batch,),
        "contexts": (time.context or config.profile.contexts[0],),
        "energy_seconds": 0.0,
        "largest_batch": False,
    }
    return experiment.parsed(
        PromotionSettings,
        {
            "seeds": tuple(range(seeds)),
            "device": config.device if device is None else device,
            "deadline_s": config.deadline_s,
            "data": config.data,
            "proxy": {**config.proxy.model_dump(), "budgets": (), "tokens": tokens},
            "profile": {**config.profile.model_dump(), **point},
            "candidates": tuple(entry.number for entry in chosen),
            "against": tuple(dict.fromkeys(against)),
            "metric": str(time),
        },
        where="promote",
    )


def _time(config: RunConfig, metric: str | None) -> MetricName:
    """The time that is made equal. Raises ConfigError."""
    used = [each.metric for each in config.parsed_objectives()]
    used += [each.metric for each in config.parsed_constraints()]
    names = [MetricName.parse(name).plain for name in (used if metric is None else [metric])]
    times = [name for name in names if name.metric in TIMES and name.batch is not None]
    if times:
        return times[0]
    if metric is None:
        return MetricName("decode_ms", batch=min(config.profile.batch_sizes, default=1))
    raise ConfigError(f"--metric: expected a time as decode_ms@b1 or prefill_ms@b1.c512, got {metric!r}")


def _asked(
    at: Session,
    settings: PromotionSettings,
    folder: RunFolder,
    ledger: Ledger,
    chosen: Sequence[Entry],
    designs: Mapping[str, Architecture],
) -> list[_Asked]:
    """The candidates, each followed by its rivals. What has no measurement yet is measured."""
    asked = []
    for entry in chosen:
        candidate = _candidate(folder, ledger, entry)
        ms = _measured(at, settings, candidate.label, candidate.architecture)
        if ms == inf:
            raise RunError(
                f"candidate {entry.number} of run {folder.name} cannot be measured: "
                f"{at.store.latencies[candidate.label].problem}"
            )
        asked.append(candidate)
        for text, design in designs.items():
            key = candidate.label, text, design.digest()
            if key not in at.store.sizes:
                at.store.add(_fitted(at, settings, ledger.config, candidate, text, design, ms))
            asked.append(_rival(ledger.config, entry.number, text, design, at.store.sizes[key], entry))
    return asked


def _candidate(folder: RunFolder, ledger: Ledger, entry: Entry) -> _Asked:
    if not isinstance(entry.architecture, Architecture):
        raise ArchitectureError(
            f"candidate {entry.number}: a vision-language model, expected a language model"
        )
    return _Asked(
        str(entry.number), entry.architecture, entry.number, origin=provenance(folder, ledger, entry)
    )


def _fitted(
    at: Session,
    settings: PromotionSettings,
    config: RunConfig,
    candidate: _Asked,
    text: str,
    design: Architecture,
    ms: float,
) -> Rescaled:
    """The size of a design that takes as long as a candidate. Raises ConfigError where there is none."""
    like = _like(design, candidate.architecture, config)
    point = MetricName.parse(settings.metric)

    def decode_bytes(member: Architecture) -> int:
        return cost(member, batch=point.batch or 1, context=settings.profile.contexts[0]).decode_bytes

    def time_of(member: Architecture) -> float:
        return _measured(at, settings, _label(text, design, member.width, member.depth), member)

    # A step that moves as many bytes takes about as long, where the device is busy.
    first = as_large(like, decode_bytes(candidate.architecture), decode_bytes)
    found, time = rescaled(like, ms, time_of, first=first)
    if not 1 / FARTHEST <= time / ms <= FARTHEST:
        raise ConfigError(
            f"--against {text}: no size of it takes as long as candidate {candidate.candidate}, {ms:.4g} ms: "
            f"the nearest, width {found.width} with {found.depth} layers, takes {time:.4g} ms"
        )
    at.console.print(
        f"{text} at width {found.width} with {found.depth} layers takes {time / ms:.3f} of the time of "
        f"candidate {candidate.candidate}",
        soft_wrap=True,
    )
    return Rescaled(
        label=candidate.label,
        design=text,
        digest=design.digest(),
        width=found.width,
        depth=found.depth,
    )


def _like(design: Architecture, candidate: Architecture, config: RunConfig) -> Architecture:
    """The design with what the run's text and training ask of every model."""
    meta_tokens = min(config.space.meta_tokens, key=lambda count: abs(count - design.meta_tokens))
    changes = {"vocabulary": candidate.vocabulary, "normalized_head": candidate.normalized_head}
    return design.model_copy(update={**changes, "meta_tokens": meta_tokens})


def _rival(
    config: RunConfig, number: int, text: str, design: Architecture, size: Rescaled, entry: Entry
) -> _Asked:
    if not isinstance(entry.architecture, Architecture):
        raise ArchitectureError(f"candidate {number}: a vision-language model, expected a language model")
    architecture = sized(_like(design, entry.architecture, config), size.width, size.depth)
    return _Asked(_label(text, design, size.width, size.depth), architecture, number, text)


def _label(text: str, design: Architecture, width: int, depth: int) -> str:
    """A rival's label. What is not shipped may change under its name, so that the digest belongs to it."""
    own = "" if shipped.find(Path(text), "architecture") is not None else f" {design.digest()[:8]}"
    return f"{text} {width}x{depth}{own}"


def _measured(at: Session, settings: PromotionSettings, label: str, architecture: Architecture) -> float:
    """The time of a model (ms); infinity where it cannot be measured."""
    name = MetricName.parse(settings.metric)
    latency = experiment.measured(at, label, architecture, (name.metric,))
    at_first = replace(name, context=None)
    return latency.decode_ms.get(str(at_first), inf)


def _wanted(at: Session, settings: PromotionSettings, one: _Asked, folder: RunFolder, seed: int) -> _Kept:
    title = f"{folder.name}:{one.candidate}" if not one.rival else one.label
    kept = KeptTraining(title, one.architecture, settings.data, settings.proxy, seed, origin=one.origin)
    to = _folder(at.store, settings, one, seed)
    return _Kept(one.label, one.architecture, settings.proxy, seed, to, kept)


def _folder(store: Store, settings: PromotionSettings, one: _Asked, seed: int) -> Path:
    name = _NOT_IN_NAMES.sub("-", one.label).strip("-.")
    return store.folder.path / f"{name}-{settings.proxy.tokens}-seed{seed}"


def _promotion(
    folder: RunFolder, store: Store, settings: PromotionSettings, asked: Sequence[_Asked]
) -> Promotion:
    members = [_member(store, settings, one) for one in asked]
    own = {member.candidate: member for member in members if not member.rival}
    comparisons = [compared(own[member.candidate], member) for member in members if member.rival]
    return Promotion(
        folder.name,
        folder.path,
        settings.proxy.tokens,
        settings.seeds,
        settings.metric,
        tuple(members),
        tuple(comparisons),
    )


def _member(store: Store, settings: PromotionSettings, one: _Asked) -> Member:
    keys = {seed: (one.label, settings.proxy.tokens, seed) for seed in settings.seeds}
    trainings = {seed: store.trainings[key] for seed, key in keys.items() if key in store.trainings}
    latency = store.latencies.get(one.label)
    name = str(replace(MetricName.parse(settings.metric), context=None))
    folders = {seed: _folder(store, settings, one, seed) for seed in trainings}
    return Member(
        label=one.label,
        candidate=one.candidate,
        rival=one.rival,
        params=parameters(one.architecture),
        width=one.architecture.width,
        depth=one.architecture.depth,
        ms=latency.decode_ms.get(name) if latency is not None else None,
        tainted=latency.tainted if latency is not None else (),
        losses={seed: each.loss for seed, each in trainings.items() if each.loss is not None},
        problems={
            seed: f"{each.status}: {each.reason}" for seed, each in trainings.items() if each.loss is None
        },
        folders={seed: str(path) for seed, path in folders.items() if path.is_dir()},
    )
