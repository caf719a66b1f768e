"""The loop of a search: ask, evaluate, record, tell."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import numpy as np

from operators import Architecture
from operators.base.errors import ConfigError, RunError, SpaceExhausted
from operators.base.files import write_whole
from operators.cost import cost
from profiler.process.worker import ProfilingWorker
from proxy_train.text.corpus import Corpus
from proxy_train.text.data import require_windows
from proxy_train.text.prepare import prepare
from proxy_train.text.source_record import SourceRecord
from search.cluster.executor import Executor, Lost, Retries
from search.config.evaluation import GateSettings
from search.config.run import RunConfig
from search.evaluation.fidelity import rungs_of
from search.evaluation.outcome import Evaluation, Job, Outcome
from search.evaluation.profiling import Failure, profiled
from search.gates.arithmetic import arithmetic, arithmetic_check
from search.gates.screen import Screen
from search.gates.table import in_time, known_costs, table_check
from search.objectives import first_broken, needs_training, require_agreement
from search.runs.entry import Again, Entry, finished
from search.runs.folder import RunFolder
from search.runs.frontier import frontier_of, trained_twice
from search.runs.ledger import Ledger
from search.runs.progress import Progress
from search.runs.repeats import next_remeasured, next_repeat
from search.runs.worker_time import searched
from search.searchers.contract import Proposer
from search.searchers.guided import Known
from search.searchers.registry import searcher
from search.spaces.free import ArchitectureSpace
from search.spaces.staged import make_space

PROBES = 256  # samples that stand for the space when constraints are checked before any work


@dataclass(frozen=True)
class Prepared:
    """A run whose configuration was found sound: the text is tokenized and the space has members, which `screen` lets through.

    known: what the latency table tells of objectives beforehand (`table_gate.known_costs`).
    """

    config: RunConfig
    corpus: Corpus
    space: ArchitectureSpace
    screen: Screen = field(default_factory=lambda: Screen(settings=GateSettings(), seed=0))
    known: Known[Architecture] = field(default_factory=dict)


def prepare_run(config: RunConfig, *, on_source: Callable[[SourceRecord], None] | None = None) -> Prepared:
    """The text tokenized and the space built.

    on_source: hears which files of the text are read, before any is.
    Raises DataError, and ConfigError or TableError where the latency table cannot serve.
    """
    corpus = prepare(config.data, on_source=on_source)
    require_windows(corpus, config.proxy.sequence_length)
    everything = make_space(config.space, corpus.vocabulary)
    table = table_check(config, everything) if config.gates.table else None
    screen = Screen(arithmetic_check(config), table, settings=config.gates, seed=config.seed)
    fast = in_time(config) if config.gates.table else None
    known = known_costs(config, everything) if config.searcher.name == "guided" else {}
    return Prepared(
        config,
        corpus,
        make_space(config.space, corpus.vocabulary, accepts=screen, in_time=fast),
        screen,
        known,
    )


def check_constraints(prepared: Prepared, *, measured_here: bool = True) -> None:
    """Raises ConfigError for constraints that contradict each other and for one that no probe of the space meets.

    Losses cannot be known before training.

    measured_here: whether this machine has the device, so that constraints on measurements can be tried too.
    """
    config = prepared.config
    constraints, space = config.parsed_constraints(), make_space(config.space, prepared.corpus.vocabulary)
    if not constraints:
        return
    require_agreement(constraints)
    rng = np.random.default_rng(config.seed)
    probes = [*space.seeds(), *(space.sample(rng) for _ in range(PROBES))]
    metrics = [*map(arithmetic(config), probes)]
    for constraint in constraints:
        if all(constraint.broken_by(found) for found in metrics):
            closest = (min if constraint.relation in ("<=", "<") else max)(
                found[constraint.metric] for found in metrics
            )
            raise ConfigError(
                f"constraint '{constraint}': no sample of the space meets it, the closest of {len(probes)} has {closest:g}"
            )
    accepted = [
        probe
        for probe, found in zip(probes, metrics, strict=True)
        if first_broken(constraints, found) is None
    ]
    if not accepted:
        together = "' and '".join(str(constraint) for constraint in constraints)
        raise ConfigError(f"constraints '{together}': no sample of the space meets them together")
    prepared.space.sample(rng)  # raises where the latency table lets nobody through

    if not measured_here:
        return
    measured = [
        item for item in constraints if item.metric not in metrics[0] and not needs_training(item.metric)
    ]
    seen: list[dict[str, float]] = []
    small_first = sorted(accepted, key=lambda probe: (probe.depth, cost(probe, batch=1, context=1).params))
    with ProfilingWorker(config.device) as worker:
        for probe in chain(
            (*small_first[:2], small_first[-1]), prepared.space.shallow()
        ):  # the latter are made when they are asked for
            if not measured:
                return
            found = profiled(worker, probe, config.profile, seed=config.seed, deadline_s=config.deadline_s)
            if isinstance(
                found, Failure
            ):  # that one cannot be measured does not tell that no other meets the constraint
                continue
            seen.append(found.metrics())
            measured = [constraint for constraint in measured if constraint.broken_by(seen[-1])]
    for constraint in measured if seen else ():
        closest = (min if constraint.relation in ("<=", "<") else max)(
            found[constraint.metric] for found in seen
        )
        raise ConfigError(
            f"constraint '{constraint}': no sample meets it; of {len(seen)} measured, the largest of the space and the smallest with each "
            f"mixer, the closest has {closest:.4g}"
        )


def drive(
    prepared: Prepared,
    folder: RunFolder,
    ledger: Ledger,
    executor: Executor,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Runs the search until its candidates are evaluated, its time is up or the space has no more; continues from what the ledger holds.

    Raises RunError for an evaluation that failed in an unexpected way, after it is recorded.
    """
    config, start, here = prepared.config, time.monotonic(), 0
    objectives = config.parsed_objectives()
    proposer = searcher(
        config.searcher.name, prepared.space, config.evolution, seed=config.seed, known=prepared.known
    )

    entries = {entry.number: entry for entry in ledger.entries()}
    before_s = searched(tuple(entries.values()))
    _replay(proposer, tuple(entries.values()), config)
    waiting = deque(
        entry
        for entry in entries.values()
        if entry.evaluation is None or (entry.again and entry.again.evaluation is None)
    )
    running, exhausted, retries = 0, ledger.exhausted, Retries(config.retries)
    if entries:
        prepared.screen.take_counts()  # of what the proposer asked when the run began, which was counted then

    def submit(job: Job) -> None:
        executor.submit(job)
        place = executor.place(job.number)
        again = entries[job.number].again
        if again is None:
            ledger.begin(job.number, place)
        else:
            ledger.begin_again(job.number, place, trains=again.trains)

    def report() -> None:
        seconds = time.monotonic() - start
        limit = None if config.time_s is None else config.time_s - before_s
        on_progress(
            Progress(config.candidates, tuple(entries.values()), running, seconds, here, limit, objectives)
        )

    def next_entry() -> Entry | None:
        """What to evaluate next: what was begun, then who is in doubt, then who is new, then who was not measured well."""
        nonlocal exhausted
        if waiting:
            return waiting.popleft()
        if config.time_s is not None and (
            ledger.time_up or before_s + time.monotonic() - start >= config.time_s
        ):
            ledger.end_time()
            return None
        if (number := next_repeat(tuple(entries.values()), config)) is not None:
            entries[number] = entries[number].with_again(Again(attempts=()))
            return entries[number]
        if len(entries) >= config.candidates or exhausted:
            if (number := next_remeasured(tuple(entries.values()), config)) is not None:
                entries[number] = entries[number].with_again(Again(attempts=(), trains=False))
                return entries[number]
            return None
        try:
            proposal = proposer.ask()
        except SpaceExhausted:
            exhausted = True
            ledger.exhaust()
            return next_entry()
        screened = prepared.screen.take_counts()
        ledger.propose(proposal, _flat(prepared.space.features(proposal.candidate)), screened)
        entries[proposal.number] = Entry(
            proposal.number, proposal.candidate, proposal.parents, proposal.origin, screened=screened
        )
        return entries[proposal.number]

    report()
    while True:
        while running < executor.capacity and (entry := next_entry()) is not None:
            submit(_job(prepared, entry, tuple(entries.values())))
            running += 1
        report()
        if not running:
            return
        job, found = executor.next()
        outcome = retries.verdict(job, found) if isinstance(found, Lost) else found
        if outcome is None:
            submit(job)
            continue
        running, here, before = running - 1, here + 1, entries[job.number]
        if before.evaluation is None:
            _keep(folder, config, job.number, outcome)
            order = ledger.record(job.number, outcome.evaluation)
            proposer.tell(job.number, _objectives(config, outcome.evaluation))
            entries[job.number] = replace(before, evaluation=outcome.evaluation, order=order)
        else:
            if not folder.weights(job.number).is_file():
                _keep(folder, config, job.number, outcome)
            ledger.record_again(job.number, outcome.evaluation)
            entries[job.number] = before.with_again(
                Again(attempts=(), evaluation=outcome.evaluation, trains=job.trains)
            )
            _tell_again(proposer, entries[job.number], config)
        if config.keep_weights == "frontier":
            _drop_dominated_weights(
                folder, {entry.number for entry in frontier_of(tuple(entries.values()), objectives)}
            )
        if outcome.evaluation.status == "error":
            raise RunError(
                f"candidate {job.number} failed in an unexpected way: {outcome.evaluation.reason}; "
                f"`{folder.command('show', job.number)}` has the traceback, `{folder.command('resume')}` goes on without it"
            )


def _replay(proposer: Proposer[Architecture], entries: Sequence[Entry], config: RunConfig) -> None:
    """Tells a new proposer all that the ledger holds, in the order in which it was acknowledged."""
    for entry in entries:
        proposer.restore(entry.proposal)
    told: list[tuple[int, Callable[[], None]]] = []
    for entry in finished(entries):
        first, again = entry.first or entry.evaluation, entry.again
        if entry.order is not None and first is not None:
            told.append((entry.order, partial(proposer.tell, entry.number, _objectives(config, first))))
        if again is not None and again.order is not None:
            told.append((again.order, partial(_tell_again, proposer, entry, config)))
    for _, tell in sorted(told, key=lambda pair: pair[0]):
        tell()


def _tell_again(proposer: Proposer[Architecture], entry: Entry, config: RunConfig) -> None:
    """The mean scores of one that was trained twice; nothing where the second evaluation has none."""
    if trained_twice(entry) and entry.evaluation is not None:
        scores = _objectives(config, entry.evaluation)
        if scores is not None:
            proposer.tell_again(entry.number, scores)


def _keep(folder: RunFolder, config: RunConfig, number: int, outcome: Outcome) -> None:
    if outcome.weights is not None and config.keep_weights != "none":
        write_whole(folder.weights(number), outcome.weights)


def _flat(features: Mapping[str, float]) -> dict[str, float]:
    """The features that people look at: sizes and counts of operators, without every gene."""
    return {name: value for name, value in features.items() if "." not in name or name.endswith(".count")}


def _job(prepared: Prepared, entry: Entry, entries: Sequence[Entry]) -> Job:
    """A second evaluation has the next seed; no gate but the constraints turns it away, as its whole score is wanted."""
    config, again = prepared.config, entry.again is not None
    objectives = config.parsed_objectives()
    trained = [
        other.evaluation.metrics
        for other in entries
        if other.evaluation and other.evaluation.status in ("ok", "stopped")
    ]
    return Job(
        number=entry.number,
        architecture=entry.architecture,
        corpus=prepared.corpus,
        proxy=config.proxy,
        profile=config.profile,
        constraints=config.parsed_constraints(),
        device=config.device,
        seed=config.seed + again,
        deadline_s=config.deadline_s,
        fidelity=config.fidelity,
        tasks=config.tasks,
        gates=config.gates,
        objectives=objectives,
        rungs=() if again else rungs_of(config.fidelity, objectives, trained),
        table_said="" if again else prepared.screen.table_says(entry.architecture),
        kinds=config.device_kind,
        trains=entry.again is None or entry.again.trains,
    )


def _objectives(config: RunConfig, evaluation: Evaluation) -> tuple[float, ...] | None:
    if evaluation.status != "ok":
        return None
    return tuple(objective.cost(evaluation.metrics) for objective in config.parsed_objectives())


def _drop_dominated_weights(folder: RunFolder, kept: set[int]) -> None:
    wanted = {folder.weights(number) for number in kept}
    for path in folder.path.glob("weights/*.safetensors"):
        if path not in wanted:
            path.unlink()
