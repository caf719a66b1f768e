"""The loop of a search: ask, evaluate, record, tell."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from operators.base.errors import RunError, SpaceExhausted
from operators.base.files import write_whole
from operators.vision.vision_language import Model
from search.cluster.executor import Executor, Lost, Retries
from search.evaluation.fidelity import Rung, rungs_of
from search.evaluation.outcome import Job, Outcome
from search.runs.entry import Again, Entry
from search.runs.folder import RunFolder
from search.runs.frontier import scored
from search.runs.ledger import Ledger
from search.runs.preflight import Prepared
from search.runs.progress import Progress
from search.runs.repeats import next_remeasured, next_repeat
from search.runs.replay import replay, scores, tell_again
from search.runs.worker_time import searched
from search.searchers.contract import Proposer
from search.searchers.registry import searcher


def drive(
    prepared: Prepared,
    folder: RunFolder,
    ledger: Ledger,
    executor: Executor,
    *,
    here: bool = True,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_evaluated: Callable[[Entry], None] = lambda entry: None,
) -> None:
    """Runs the search until its candidates are evaluated, its time is up or the space has no more.

    It continues from what the ledger holds.

    here: whether evaluations run on this machine, so that they can write into the run's folder.
    on_progress: called after every change.
    on_evaluated: called with each candidate whose evaluation has ended, the second one too.

    Raises RunError for an evaluation that failed in an unexpected way, after it is recorded.
    """
    loop = _Loop(prepared, folder, ledger, executor, workers_here=here)
    on_progress(loop.progress())
    while True:
        loop.fill()
        on_progress(loop.progress())
        if not loop.running:
            return
        if (entry := loop.take()) is not None:
            on_evaluated(entry)


class _Loop:
    """The state of a search that is being driven."""

    def __init__(
        self,
        prepared: Prepared,
        folder: RunFolder,
        ledger: Ledger,
        executor: Executor,
        *,
        workers_here: bool,
    ) -> None:
        config, self._workers_here = prepared.config, workers_here
        self._prepared, self._folder, self._ledger, self._executor = prepared, folder, ledger, executor
        self._config, self._start, self._here, self.running = config, time.monotonic(), 0, 0
        self._objectives, self._constraints = config.parsed_objectives(), config.parsed_constraints()
        self._profile = config.measured
        # The space of either kind of model, and what is known of its members.
        self._space, known = cast("tuple[Any, Any]", (prepared.seeing or prepared.space, prepared.known))
        self._proposer: Proposer[Model] = searcher(
            config.searcher.name, self._space, config.evolution, seed=config.seed, known=known
        )
        entries = ledger.entries()
        self._entries = {entry.number: entry for entry in entries}
        self._before_s = searched(entries)
        replay(self._proposer, entries, self._objectives)
        self._waiting = deque(
            entry
            for entry in entries
            if entry.evaluation is None or (entry.again and entry.again.evaluation is None)
        )
        self._exhausted, self._retries = ledger.exhausted, Retries(config.retries)
        if entries:
            prepared.screen.take_counts()  # a new proposer asks again what was counted when the run began

    def progress(self) -> Progress:
        time_s = self._config.time_s
        return Progress(
            total=self._config.candidates,
            entries=self._all(),
            running=self.running,
            seconds=self._seconds(),
            here=self._here,
            limit=None if time_s is None else time_s - self._before_s,
            objectives=self._objectives,
        )

    def fill(self) -> None:
        """Submits jobs until the executor has no room or nothing is left to begin."""
        while self.running < self._executor.capacity and (entry := self._next()) is not None:
            self._executor.submit(self._job(entry))
            self._begin(entry.number)
            self.running += 1

    def take(self) -> Entry | None:
        """Waits for an evaluation and records it, or submits again one that was lost.

        Returns the candidate that was recorded.

        Raises RunError for one that failed in an unexpected way, after it is recorded.
        """
        job, ended = self._executor.next()
        outcome = self._retries.verdict(job, ended) if isinstance(ended, Lost) else ended
        if outcome is None:
            self._executor.submit(job)
            self._begin(job.number)
            return None
        self.running, self._here = self.running - 1, self._here + 1
        if self._entries[job.number].evaluation is None:
            self._record(job.number, outcome)
        else:
            self._record_again(job, outcome)
        if self._config.keep_weights == "frontier":
            self._drop_dominated_weights()
        if outcome.evaluation.status == "error":
            raise RunError(
                f"candidate {job.number} failed in an unexpected way: {outcome.evaluation.reason}; "
                f"`{self._folder.command('show', job.number)}` has the traceback, "
                f"`{self._folder.command('resume')}` goes on without it"
            )
        return self._entries[job.number]

    def _all(self) -> tuple[Entry, ...]:
        return tuple(self._entries.values())

    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def _time_is_up(self) -> bool:
        time_s = self._config.time_s
        return time_s is not None and (self._ledger.time_up or self._before_s + self._seconds() >= time_s)

    def _next(self) -> Entry | None:
        """What to evaluate next: what was begun, a repeat, a new candidate, or a tainted one again."""
        if self._waiting:
            return self._waiting.popleft()
        if self._time_is_up():
            self._ledger.end_time()
            return None
        number = next_repeat(self._all(), self._objectives, share=self._config.repeats)
        if number is not None:
            return self._again(number, trains=True)
        if len(self._entries) < self._config.candidates and not self._exhausted:
            try:
                return self._propose()
            except SpaceExhausted:
                self._exhausted = True
                self._ledger.exhaust()
                return self._next()
        number = next_remeasured(self._all(), self._objectives)
        return None if number is None else self._again(number, trains=False)

    def _again(self, number: int, *, trains: bool) -> Entry:
        self._entries[number] = self._entries[number].with_again(Again(attempts=(), trains=trains))
        return self._entries[number]

    def _propose(self) -> Entry:
        """A new candidate. Raises SpaceExhausted."""
        proposal = self._proposer.ask()
        screened = self._prepared.screen.take_counts()
        features = _flat(self._space.features(proposal.candidate))
        self._ledger.propose(proposal, features, screened)
        entry = Entry(
            proposal.number, proposal.candidate, proposal.parents, proposal.origin, screened=screened
        )
        self._entries[proposal.number] = entry
        return entry

    def _job(self, entry: Entry) -> Job:
        """The evaluation of a candidate.

        A second one has the next seed, and no gate but the constraints: its whole score is wanted.
        """
        config, again = self._config, entry.again is not None
        file = self._folder.weights(entry.number)
        keeps = config.keep_weights != "none" and not (again and file.is_file())
        rungs: tuple[Rung, ...] = ()
        if config.fidelity.rungs and not again:
            evaluations = (other.evaluation for other in self._entries.values())
            trained = [each.metrics for each in evaluations if each and each.status in ("ok", "stopped")]
            rungs = rungs_of(config.fidelity.rungs, self._objectives, trained)
        return Job(
            number=entry.number,
            architecture=entry.architecture,
            corpus=self._prepared.corpus,
            proxy=config.proxy,
            profile=self._profile,
            constraints=self._constraints,
            device=config.device,
            seed=config.seed + again,
            deadline_s=config.deadline_s,
            fidelity=config.fidelity,
            tasks=config.tasks,
            gates=config.gates,
            objectives=self._objectives,
            rungs=rungs,
            table_said="" if again else self._table_says(entry),
            kinds=config.device_kind,
            images=self._prepared.images,
            stages=config.vision.stages if config.vision else None,
            trains=entry.again is None or entry.again.trains,
            keeps_weights=keeps,
            weights_file=str(file.absolute()) if keeps and self._workers_here else "",
        )

    def _table_says(self, entry: Entry) -> str:
        """What the latency table has against a candidate that was let through."""
        return self._prepared.screen.table_says(entry.architecture)

    def _begin(self, number: int) -> None:
        """Notes that a candidate that was submitted has begun, and where."""
        place, again = self._executor.place(number), self._entries[number].again
        if again is None:
            self._ledger.begin(number, place)
        else:
            self._ledger.begin_again(number, place, trains=again.trains)

    def _record(self, number: int, outcome: Outcome) -> None:
        """Acknowledges a first evaluation and tells the proposer."""
        evaluation = outcome.evaluation
        self._keep(number, outcome)
        order = self._ledger.record(number, evaluation)
        self._proposer.tell(number, scores(self._objectives, evaluation))
        self._entries[number] = replace(self._entries[number], evaluation=evaluation, order=order)

    def _record_again(self, job: Job, outcome: Outcome) -> None:
        """Acknowledges a second evaluation and tells the proposer the means."""
        if not self._folder.weights(job.number).is_file():
            self._keep(job.number, outcome)
        self._ledger.record_again(job.number, outcome.evaluation)
        again = Again(attempts=(), evaluation=outcome.evaluation, trains=job.trains)
        self._entries[job.number] = self._entries[job.number].with_again(again)
        tell_again(self._proposer, self._entries[job.number], self._objectives)

    def _keep(self, number: int, outcome: Outcome) -> None:
        if outcome.weights is not None and self._config.keep_weights != "none":
            write_whole(self._folder.weights(number), outcome.weights)

    def _drop_dominated_weights(self) -> None:
        frontier = scored(self._all(), self._objectives).frontier()
        kept = {self._folder.weights(entry.number) for entry in frontier}
        for path in self._folder.path.glob("weights/*.safetensors"):
            if path not in kept:
                path.unlink()


def _flat(features: Mapping[str, float]) -> dict[str, float]:
    """The features that people look at: sizes and counts of operators, without every gene."""
    return {name: value for name, value in features.items() if "." not in name or name.endswith(".count")}
