"""What a search does before it evaluates anything: prepare the text, make the gates, try the constraints."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from operators import Architecture
from operators.base.errors import ConfigError, DeviceError
from operators.vision.cost import parameters_of
from operators.vision.vision_language import Model
from profiler.process.worker import ProfilingWorker
from profiler.table.latency_table import LatencyTable
from proxy_train.images.batches import require_fit
from proxy_train.images.image_corpus import ImageCorpus
from proxy_train.images.prepare import prepare_images
from proxy_train.text.corpus import TOKENIZER, Corpus
from proxy_train.text.data import require_windows
from proxy_train.text.prepare import prepare
from proxy_train.text.source_record import SourceRecord
from search.config.run import RunConfig
from search.config.vision import VisionSettings
from search.evaluation.profiling import Failure, profiled
from search.gates.arithmetic import arithmetic, arithmetic_check
from search.gates.screen import Screen
from search.gates.table import (
    device_table,
    digest_of,
    first_token_work,
    in_time,
    known_costs,
    predicted_points,
    table_check,
)
from search.objectives import Constraint, first_broken, needs_training, require_agreement
from search.searchers.guided import Known
from search.spaces.contract import Space
from search.spaces.free import ArchitectureSpace
from search.spaces.staged import make_space
from search.spaces.vision import VisionSpace, accepts_everything, seeing_space

PROBES = 256  # samples that stand for the space: one that 1 % of it meets is missed in 8 of 100 searches


@dataclass(frozen=True)
class Prepared:
    """A run whose configuration was found sound.

    corpus: the text, tokenized.
    space: the architectures that `screen` lets through.
    screen: the gates before anything is measured.
    known: what the latency table tells of objectives beforehand (`search.gates.table.known_costs`).
    images: what candidates that see are trained on; None where they do not.
    seeing: their space, of which `space` is the part of decoders.
    """

    config: RunConfig
    corpus: Corpus
    space: ArchitectureSpace
    screen: Screen = field(default_factory=lambda: Screen(audit=0.0, seed=0))
    known: Known[Architecture] = field(default_factory=dict)
    images: ImageCorpus | None = None
    seeing: VisionSpace | None = None

    @property
    def data_digest(self) -> str:
        """Of the text, and of the images where candidates see."""
        return self.corpus.digest if self.images is None else f"{self.corpus.digest}-{self.images.digest}"

    def check_constraints(self, *, measured_here: bool = True) -> None:
        """Raises ConfigError for constraints that contradict each other, and for one that no probe meets.

        `space.exportable_to` is such a constraint.

        A constraint on a loss is not tried: a loss cannot be known before training.

        measured_here: whether this machine has the device, so that constraints on measurements can be tried.
        """
        config, seeing = self.config, self.seeing
        constraints = config.parsed_constraints()
        if config.space.exportable_to:
            # Raises where the engines load nothing of the space, or nearly nothing.
            make_space(config.space, self.corpus.vocabulary).sample(np.random.default_rng(config.seed))
        if not constraints:
            return
        require_agreement(constraints)
        compute = arithmetic({each.metric for each in constraints}, config.profile, config.device)
        space: Space[Any] = make_space(config.space, self.corpus.vocabulary)
        if seeing is not None:
            space = replace(seeing, accepts=accepts_everything)
        accepted = _meeting(constraints, compute, space, seed=config.seed)
        # It raises where the table rejects all.
        (seeing or self.space).sample(np.random.default_rng(config.seed))

        computed = compute(accepted[0])
        measured = [
            each for each in constraints if each.metric not in computed and not needs_training(each.metric)
        ]
        if measured_here and measured:
            by_size = sorted(accepted, key=lambda probe: (probe.depth, parameters_of(probe)))
            # The shallow ones are made when they are asked for, which is seldom.
            probes = chain((*by_size[:2], by_size[-1]), (seeing or self.space).shallow())
            with ProfilingWorker(config.device) as worker:

                def measure(probe: Model) -> dict[str, float] | None:
                    profile = profiled(
                        worker, probe, config.profile, seed=config.seed, deadline_s=config.deadline_s
                    )
                    return None if isinstance(profile, Failure) else profile.metrics()

                _require_measured(measured, measure, probes)


def prepare_run(config: RunConfig, *, on_source: Callable[[SourceRecord], None] | None = None) -> Prepared:
    """Tokenizes the text and builds the gates and the space.

    on_source: hears which files of the text are read, before any is.

    Raises DataError, and ConfigError or TableError where the latency table cannot serve.
    """
    corpus = prepare(config.data, on_source=on_source)
    require_windows(corpus, config.proxy.sequence_length)
    if config.vision is not None:
        return _prepared_to_see(config, config.vision, corpus)
    everything = make_space(config.space, corpus.vocabulary)
    constraints, profile, device = config.parsed_constraints(), config.profile, config.device
    objectives = config.parsed_objectives()
    forecast = predicted_points(objectives, profile) if config.searcher.name == "guided" else {}
    table, gate, fast = None, None, None
    kinds, threads = config.device_kind, profile.threads
    if config.gates.table:
        table = _needed_table(device, kinds, threads=threads)
    elif forecast:
        with suppress(DeviceError):  # without the device here, the searcher learns latencies itself
            table = device_table(device, kinds, threads=threads)
    members = [] if table is None else everything.covering()
    if table is not None and config.gates.table:
        points = predicted_points(constraints, profile)
        gate = table_check(table, points, members, space=digest_of(config.space), device=device)
        fast = in_time(table, points)
    screen = Screen(
        arithmetic_check(constraints, profile, device), gate, audit=config.gates.audit, seed=config.seed
    )
    costs = {} if table is None else known_costs(table, forecast, members)
    known = {objectives.index(objective): cost for objective, cost in costs.items()}
    space = make_space(config.space, corpus.vocabulary, accepts=screen, in_time=fast)
    return Prepared(config, corpus, space, screen, known)


def _prepared_to_see(config: RunConfig, vision: VisionSettings, corpus: Corpus) -> Prepared:
    """Prepares the images, and joins the space of towers with that of decoders.

    The placeholder is the last id of the vocabulary. Raises DataError where a question or an answer has it.
    """
    end = config.data.end_of_document
    images = prepare_images(vision.images, corpus.folder / TOKENIZER, end_of_document=end)
    decoders = make_space(config.space, corpus.vocabulary)
    seeing = seeing_space(vision.space, decoders)
    require_fit(images, seeing.sample(np.random.default_rng(config.seed)))
    constraints, profile, device = config.parsed_constraints(), config.profile, config.device
    of_table = None
    if config.gates.table:
        table = _needed_table(device, config.device_kind, threads=profile.threads)
        points = predicted_points(constraints, profile)
        of_space = digest_of(config.space, vision.space)
        of_table = table_check(table, points, seeing.covering(), space=of_space, device=device)
        seeing = replace(seeing, work=first_token_work(table, points.values()) or seeing.work)
    arithmetically = arithmetic_check(constraints, profile, device)
    screen = Screen(arithmetically, of_table, audit=config.gates.audit, seed=config.seed)
    return Prepared(config, corpus, decoders, screen, images=images, seeing=replace(seeing, accepts=screen))


def _needed_table(device: str, kinds: Sequence[str], *, threads: int) -> LatencyTable:
    """The latency table of the run's device, for the gate; parameters as of `device_table`.

    Raises ConfigError where the device is not here, TableError where the table is damaged.
    """
    try:
        return device_table(device, kinds, threads=threads)
    except DeviceError as error:
        raise ConfigError(
            f"gates.table: the table is read on the machine that drives the search; {error}"
        ) from None


def _meeting(
    constraints: Sequence[Constraint],
    compute: Callable[[Model], dict[str, float]],
    space: Space[Any],
    *,
    seed: int,
) -> list[Model]:
    """The probes that meet all constraints that can be computed. Raises ConfigError where there are none."""
    rng = np.random.default_rng(seed)
    probes = [*space.seeds(), *(space.sample(rng) for _ in range(PROBES))]
    metrics = [*map(compute, probes)]
    for constraint in constraints:
        if all(constraint.broken_by(each) for each in metrics):
            closest = _closest(constraint, metrics)
            raise ConfigError(
                f"constraint '{constraint}': no sample of the space meets it, "
                f"the closest of {len(probes)} has {closest:g}"
            )
    meeting = [
        probe
        for probe, each in zip(probes, metrics, strict=True)
        if first_broken(tuple(constraints), each) is None
    ]
    if not meeting:
        together = "' and '".join(map(str, constraints))
        raise ConfigError(f"constraints '{together}': no sample of the space meets them together")
    return meeting


def _require_measured(
    constraints: Sequence[Constraint],
    measure: Callable[[Model], dict[str, float] | None],
    probes: Iterable[Model],
) -> None:
    """Raises ConfigError for a constraint that no probe meets when it is measured.

    A probe that cannot be measured says nothing: another might meet the constraint.
    """
    unmet, seen = list(constraints), list[dict[str, float]]()
    for probe in probes:
        metrics = measure(probe)
        if metrics is None:
            continue
        seen.append(metrics)
        unmet = [constraint for constraint in unmet if constraint.broken_by(metrics)]
        if not unmet:
            return
    if seen:
        raise ConfigError(
            f"constraint '{unmet[0]}': no sample meets it; of {len(seen)} measured, the largest of the space "
            f"and the smallest with each mixer, the closest has {_closest(unmet[0], seen):.4g}"
        )


def _closest(constraint: Constraint, metrics: Sequence[dict[str, float]]) -> float:
    """The value that is nearest to meeting the constraint."""
    nearest = min if constraint.relation in ("<=", "<") else max
    return nearest(each[constraint.metric] for each in metrics)
