"""The run's truth: an Optuna study in SQLite. Only the driver writes it; to resume a run is to open it again.

One trial is one candidate. It is RUNNING from its proposal to the end of its evaluation; then it is COMPLETE
(`ok`), PRUNED (`infeasible`, `stopped`) or FAIL. Its scores and its state are written together, so a trial is
either whole or still to be evaluated.

A trial that ended can never be changed. The second evaluation of a candidate is an attribute of the study,
which is written as a whole: it is there or it is not.
"""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from pydantic import ValidationError
from pydantic_core import from_json
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from operators.base.errors import ArchitectureError, RunError, flat
from operators.base.garbage import many_that_stay
from operators.base.read_json import JsonReader
from operators.vision.vision_language import Model
from search.config import run as config_module
from search.config.run import RunConfig
from search.evaluation.outcome import Evaluation
from search.runs.entry import REJECTED, Again, Attempt, Entry
from search.runs.flat_parameters import flat_parameters
from search.runs.ledger_rows import Row, rows
from search.runs.ledger_writes import begin_trial, change_trial
from search.runs.written_models import WrittenModels
from search.searchers.contract import Proposal

STUDY = "frontrunner"
LOCK_TIMEOUT_S = 20.0  # another program that reads or writes the file is done within that
AGAIN = "again:"  # and a candidate's number: the attribute that holds its second evaluation
# The attributes of a trial that an entry is made of. The others are for people who look at the study.
_READ = ("architecture", "attempts", "evaluation", "order", "origin", "parents", "screened")
_EVALUATIONS, _ATTEMPTS = JsonReader(Evaluation), JsonReader(tuple[Attempt, ...])
MANY = 500  # new candidates: a driver that goes on never has so many
LAYOUT = 4  # of what this file writes; an older or newer ledger is refused, not guessed at


class Ledger:
    """Opened by `create` or `open_ledger`; see there."""

    def __init__(self, study: optuna.Study, storage: RDBStorage) -> None:
        self._study, self._storage = study, storage
        trials = rows(storage, study._study_id, keys=("attempts",), of_ended=False)
        self._trials = {trial.number: trial.trial_id for trial in trials}
        self._acknowledged = {trial.number for trial in trials if trial.finished}
        self._entries: dict[int, Entry] = {}
        self._ended: set[int] = set()  # of _entries, those that are final
        self._again = {
            number: _again(number, value)
            for key, value in study.user_attrs.items()
            if (number := _again_number(key)) is not None
        }
        # Of those that have not ended: no others are begun.
        self._attempts = {
            trial.number: list(from_json(trial.attributes["attempts"]))
            for trial in trials
            if "attempts" in trial.attributes
        }
        self._models = WrittenModels()
        self.config: RunConfig = config_module.parse(
            study.user_attrs["config"], where="the ledger's configuration"
        )

    def propose(
        self,
        proposal: Proposal[Model],
        features: Mapping[str, float],
        screened: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        """Records that a candidate is going to be evaluated.

        features: become the trial's flat parameters.
        screened: as of an Entry.
        """
        attributes = {
            "architecture": proposal.candidate.to_json(),
            "shorthand": json.dumps(proposal.candidate.shorthand),
            "parents": json.dumps(proposal.parents),
            "origin": json.dumps(proposal.origin),
            "screened": json.dumps(dict(screened or {})),
        }
        params, distributions = flat_parameters(features, self.config.space)
        with _told_when_it_cannot_be("written"):
            self._trials[proposal.number] = begin_trial(
                self._storage,
                self._study._study_id,
                proposal.number,
                params=params,
                distributions=distributions,
                attributes=attributes,
            )

    def begin(self, number: int, place: str) -> None:
        """Records that an executor has the evaluation of a candidate, for people who watch."""
        trial_id = self._unfinished(number)
        with _told_when_it_cannot_be("written"):
            attempts = [
                *self._attempts.get(number, ()),
                Attempt(at=datetime.now(UTC), place=place).model_dump(mode="json"),
            ]
            change_trial(self._storage, trial_id, {"attempts": json.dumps(attempts)})
        self._attempts[number] = attempts

    def record(self, number: int, evaluation: Evaluation) -> int:
        """Acknowledges an evaluation: when this returns its order, it survives `kill -9`.

        Raises RunError where the candidate has one.
        """
        trial_id, order = self._unfinished(number), self._order
        outcome = f"{evaluation.status}: {evaluation.reason}" if evaluation.reason else evaluation.status
        attributes = {
            "outcome": json.dumps(outcome),
            "metrics": json.dumps(dict(evaluation.metrics)),
            "order": json.dumps(order),
            "evaluation": evaluation.model_dump_json(),
        }
        if evaluation.status == "ok":
            state = TrialState.COMPLETE
            values = [evaluation.metrics[objective.metric] for objective in self.config.parsed_objectives()]
        else:
            state, values = TrialState.PRUNED if evaluation.status in REJECTED else TrialState.FAIL, []
        with _told_when_it_cannot_be("written"):
            change_trial(self._storage, trial_id, attributes, state=state, values=values)
        self._acknowledged.add(number)
        return order

    def begin_again(self, number: int, place: str, *, trains: bool = True) -> None:
        """Records that a candidate with an evaluation is being evaluated a second time.

        Raises RunError where it has none, or two.
        """
        before = self._again.get(number, Again(attempts=(), trains=trains))
        self._write_again(
            number,
            before.model_copy(
                update={"attempts": (*before.attempts, Attempt(at=datetime.now(UTC), place=place))}
            ),
        )

    def record_again(self, number: int, evaluation: Evaluation) -> None:
        """Acknowledges the second evaluation, as `record` does the first."""
        before = self._again.get(number, Again(attempts=()))
        self._write_again(
            number,
            before.model_copy(
                update={"evaluation": evaluation, "order": self._order, "ended": datetime.now(UTC)}
            ),
        )

    def _write_again(self, number: int, again: Again) -> None:
        if number not in self._acknowledged:
            raise RunError(f"candidate {number} of the ledger has no evaluation yet")
        if number in self._again and self._again[number].evaluation is not None:
            raise RunError(f"candidate {number} of the ledger has its second evaluation already")
        with _told_when_it_cannot_be("written"):
            self._study.set_user_attr(f"{AGAIN}{number}", again.model_dump(mode="json"))
        self._again[number] = again

    @property
    def _order(self) -> int:
        """How many evaluations are acknowledged."""
        return len(self._acknowledged) + sum(again.evaluation is not None for again in self._again.values())

    def _unfinished(self, number: int) -> int:
        """The id of a trial that has no evaluation yet. Raises RunError."""
        if number not in self._trials:
            raise RunError(f"the ledger has no candidate {number}")
        if number in self._acknowledged:
            raise RunError(f"candidate {number} of the ledger has its evaluation already")
        return self._trials[number]

    def entries(self) -> tuple[Entry, ...]:
        """All candidates by number, as the ledger is now."""
        with _told_when_it_cannot_be("read"):
            # Before the trials: a candidate with a second evaluation in them has ended the first.
            attributes = self._study.user_attrs
            trials = rows(self._storage, self._study._study_id, but=self._ended, keys=_READ)
        for key, value in attributes.items():
            number = _again_number(key)
            if number is not None and (number not in self._again or self._again[number].evaluation is None):
                self._again[number] = _again(number, value)
        with many_that_stay() if len(trials) > MANY else nullcontext():
            for trial in trials:
                entry = self._entries[trial.number] = self._entry(trial)
                if entry.evaluation is not None:  # it never changes again, and takes long to read
                    self._ended.add(trial.number)
        by_number = [self._entries[number] for number in sorted(self._entries)]
        return tuple(
            entry.with_again(self._again[entry.number]) if entry.number in self._again else entry
            for entry in by_number
        )

    def entry(self, number: int) -> Entry | None:
        """One candidate as the ledger is now, without reading the others; None where there is none."""
        with _told_when_it_cannot_be("read"):
            again = self._study.user_attrs.get(f"{AGAIN}{number}")
            trials = rows(self._storage, self._study._study_id, only=number, keys=_READ)
        found = next(map(self._entry, trials), None)
        return found if found is None or again is None else found.with_again(_again(number, again))

    def _entry(self, trial: Row) -> Entry:
        written, ended = trial.attributes, trial.finished
        try:
            return Entry(
                number=trial.number,
                architecture=self._models.read(from_json(written["architecture"])),
                parents=tuple(from_json(written["parents"])),
                origin=from_json(written["origin"]),
                evaluation=_EVALUATIONS.read(written["evaluation"]) if ended else None,
                order=from_json(written["order"]) if ended else None,
                screened={
                    gate: (seen, turned_away)
                    for gate, (seen, turned_away) in from_json(written["screened"]).items()
                },
                attempts=_ATTEMPTS.read(written.get("attempts", "[]")),
                ended=trial.completed,
            )
        except (KeyError, ValueError, ArchitectureError) as error:
            raise RunError(
                f"candidate {trial.number} of the ledger is damaged: {flat(error, at_most=200)}"
            ) from None

    @property
    def corpus_digest(self) -> str:
        """What the text was when the run began, see `Corpus.digest`."""
        return str(self._study.user_attrs["corpus"])

    @property
    def exhausted(self) -> bool:
        """Whether the space had no new candidates any more."""
        return self._flag("exhausted")

    def exhaust(self) -> None:
        """Records that the space has no new candidates."""
        with _told_when_it_cannot_be("written"):
            self._study.set_user_attr("exhausted", True)

    @property
    def time_up(self) -> bool:
        """Whether a driver found the run's time to be up."""
        return self._flag("time_up")

    def _flag(self, name: str) -> bool:
        with _told_when_it_cannot_be("read"):
            return bool(self._study.user_attrs.get(name))

    def end_time(self) -> None:
        """Records that the run's time is up, so that a later driver begins nothing in a last moment."""
        if not self.time_up:
            with _told_when_it_cannot_be("written"):
                self._study.set_user_attr("time_up", True)

    def complete(self, entries: Sequence[Entry]) -> bool:
        """Whether every candidate that the run will have is there, and nothing that was begun is left to do.

        entries: what `entries` returned.
        """
        return self.ended(entries) and (self.exhausted or len(entries) >= self.config.candidates)

    def ended(self, entries: Sequence[Entry]) -> bool:
        """Whether nothing that was begun is left to do."""
        return all(entry.evaluation and (entry.again is None or entry.again.evaluation) for entry in entries)

    @property
    def started(self) -> str:
        """When and how the run was started, for people."""
        return str(self._study.user_attrs["started"])

    @property
    def command(self) -> str:
        return str(self._study.user_attrs["command"])

    def close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()


def create(path: Path, config: RunConfig, *, started: str, corpus_digest: str = "") -> Ledger:
    """A new, empty ledger at `path`.

    started: when, for people.
    corpus_digest: of the text that the run reads.

    Raises RunError where it cannot be written.
    """
    objectives = config.parsed_objectives()
    directions: list[Literal["minimize", "maximize"]] = [
        "maximize" if objective.maximize else "minimize" for objective in objectives
    ]
    try:
        with _quiet_optuna():
            storage = _storage(path)
            study = optuna.create_study(study_name=STUDY, storage=storage, directions=directions)
            study.set_metric_names([objective.metric for objective in objectives])
        for key, value in {
            "layout": LAYOUT,
            "config": json.loads(config.model_dump_json()),
            "corpus": corpus_digest,
            "started": started,
            "command": " ".join(sys.argv),
        }.items():
            study.set_user_attr(key, value)
        return Ledger(study, storage)
    except (SQLAlchemyError, StorageInternalError) as error:
        raise RunError(f"{path}: cannot be written: {_reason(error)}") from None


def open_ledger(path: Path) -> Ledger:
    """An existing ledger. Raises RunError if it is missing, damaged or of another layout."""
    if not path.is_file():
        raise RunError(f"{path}: no ledger there; expected the file that `frontrunner search` writes")
    try:
        with _quiet_optuna():
            storage = _storage(path)
            study = optuna.load_study(study_name=STUDY, storage=storage)
            layout = study.user_attrs.get("layout")
    except OperationalError as error:
        if "locked" not in str(error.orig):
            raise RunError(f"{path}: not a ledger of frontrunner: {error.orig}") from None
        raise RunError(f"{path}: does not answer: {error.orig}") from None
    except (
        Exception
    ) as error:  # SQLAlchemy, Alembic and Optuna each have their own words for a file that is not theirs
        raise RunError(f"{path}: not a ledger of frontrunner: {flat(error, at_most=200)}") from None
    if layout != LAYOUT:
        raise RunError(
            f"{path}: written by another version of frontrunner (layout {layout}, expected {LAYOUT})"
        )
    try:
        return Ledger(study, storage)
    except (KeyError, StorageInternalError, SQLAlchemyError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else _reason(error)
        raise RunError(f"{path}: cannot be read: {reason}") from None


def _again_number(key: str) -> int | None:
    """The candidate whose second evaluation an attribute of the study is, if it is one."""
    return int(key.removeprefix(AGAIN)) if key.startswith(AGAIN) else None


def _again(number: int, value: object) -> Again:
    try:
        return Again.model_validate(value)
    except ValidationError as error:
        raise RunError(f"candidate {number} of the ledger is damaged: {flat(error, at_most=200)}") from None


def _storage(path: Path) -> RDBStorage:
    url = URL.create("sqlite", database=str(path.resolve())).render_as_string()  # quotes ?, %, # and braces
    return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCK_TIMEOUT_S}})


def _reason(error: Exception) -> str:
    """The database's own words for an error, on one line."""
    originals = (getattr(cause, "orig", None) for cause in (error, error.__cause__))
    return str(next(filter(None, originals), error)).splitlines()[0]


@contextmanager
def _told_when_it_cannot_be(done: Literal["read", "written"]) -> Iterator[None]:
    """Raises RunError where the database refuses, as on a full disk; what it held before stays whole."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise RunError(
            f"the ledger cannot be {done} ({_reason(error)}); it is whole, "
            "and `frontrunner resume` goes on from there"
        ) from error


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(verbosity)
