"""The run's truth: an Optuna study in SQLite. Only the driver writes it; to resume a run is to open it again.

One trial is one candidate. It is RUNNING from its proposal to the end of its evaluation; then it is COMPLETE
(`ok`), PRUNED (`infeasible`, `stopped`) or FAIL. Its scores and its state are written together, so a trial is
either whole or still to be evaluated.

A trial that ended can never be changed. The second evaluation of a candidate is an attribute of the study,
which is written as a whole: it is there or it is not.
"""

import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from operators.base.errors import ArchitectureError, RunError, flat
from operators.base.garbage import many_that_stay
from operators.base.read_json import JsonReader
from operators.vision.vision_language import Model
from search.config import run as config_module
from search.config.run import RunConfig
from search.evaluation.outcome import Evaluation
from search.runs import loads_in
from search.runs.entry import Again, Attempt, Entry
from search.runs.flat_parameters import flat_parameters
from search.runs.ledger_rows import Row, refused, rows, study_attributes
from search.runs.written_models import WrittenModel, WrittenModels
from search.searchers.contract import Proposal

if TYPE_CHECKING:
    from search.runs.ledger_writes import Writer

CONFIG = "the ledger's configuration"
AGAIN = "again:"  # and a candidate's number: the attribute that holds its second evaluation
# The attributes of a trial that an entry is made of. The others are for people who look at the study.
_READ = (
    *("architecture", "attempts", "evaluation", "loads_in", "order"),
    *("origin", "parents", "screened", "shorthand"),
)
_EVALUATIONS, _ATTEMPTS, _AGAINS = JsonReader(Evaluation), JsonReader(tuple[Attempt, ...]), JsonReader(Again)
MANY = 500  # new candidates: a driver that goes on never has so many
LAYOUT = 4  # of what this file writes; an older or newer ledger is refused, not guessed at


class Ledger:
    """Opened by `create` or `open_ledger`; see there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[int, Entry] = {}
        self._ended: set[int] = set()  # of _entries, those that are final
        self._again: dict[int, Again] = {}
        self._models = WrittenModels()
        attributes = study_attributes(path)
        self._look_for_second(attributes)
        config = from_json(attributes["config"])
        self.config: RunConfig = config_module.parse(config, where=CONFIG, written=True)

    @cached_property
    def _writer(self) -> "Writer":
        from search.runs.ledger_writes import open_writer  # imports Optuna, which no reader needs

        return open_writer(self._path)

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
            "loads_in": loads_in.write(proposal.candidate),
            "parents": json.dumps(proposal.parents),
            "origin": json.dumps(proposal.origin),
            "screened": json.dumps(dict(screened or {})),
        }
        parameters = flat_parameters(features, self.config.space.ranges())
        self._writer.propose(proposal.number, parameters, attributes)

    def begin(self, number: int, place: str) -> None:
        """Records that an executor has the evaluation of a candidate, for people who watch."""
        attempt = Attempt(at=datetime.now(UTC), place=place).model_dump(mode="json")
        attempts = [*self._writer.attempts.get(number, ()), attempt]
        self._writer.change(number, {"attempts": json.dumps(attempts)})
        self._writer.attempts[number] = attempts

    def record(self, number: int, evaluation: Evaluation) -> int:
        """Acknowledges an evaluation: when this returns its order, it survives `kill -9`.

        Raises RunError where the candidate has one.
        """
        order, status = self._order, evaluation.status
        attributes = {
            "outcome": json.dumps(f"{status}: {evaluation.reason}" if evaluation.reason else status),
            "metrics": json.dumps(dict(evaluation.metrics)),
            "order": json.dumps(order),
            "evaluation": evaluation.model_dump_json(),
        }
        wanted = self.config.parsed_objectives() if status == "ok" else ()
        values = [evaluation.metrics[objective.metric] for objective in wanted]
        self._writer.end(number, attributes, status, values)
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
        if number not in self._writer.acknowledged:
            raise RunError(f"candidate {number} of the ledger has no evaluation yet")
        if number in self._again and self._again[number].evaluation is not None:
            raise RunError(f"candidate {number} of the ledger has its second evaluation already")
        self._writer.set(f"{AGAIN}{number}", again.model_dump(mode="json"))
        self._again[number] = again

    @property
    def _order(self) -> int:
        """How many evaluations are acknowledged."""
        second = sum(again.evaluation is not None for again in self._again.values())
        return len(self._writer.acknowledged) + second

    def entries(self) -> tuple[Entry, ...]:
        """All candidates by number, as the ledger is now."""
        with _told_when_it_cannot_be_read():
            # Before the trials: a candidate with a second evaluation in them has ended the first.
            attributes = study_attributes(self._path)
            trials = rows(self._path, but=self._ended, keys=_READ)
        self._look_for_second(attributes)
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
        with _told_when_it_cannot_be_read():
            again = study_attributes(self._path, f"{AGAIN}{number}")
            trials = rows(self._path, only=number, keys=_READ)
        self._look_for_second(again)
        found = next(map(self._entry, trials), None)
        second = self._again.get(number)
        return found if found is None or second is None else found.with_again(second)

    def _look_for_second(self, attributes: Mapping[str, str]) -> None:
        """Reads the second evaluations among attributes of the study; one that has ended stays as it is."""
        for key, text in attributes.items():
            number = int(key.removeprefix(AGAIN)) if key.startswith(AGAIN) else None
            if number is None or (number in self._again and self._again[number].evaluation is not None):
                continue
            try:
                self._again[number] = _AGAINS.read(text)
            except ValueError as error:
                raise _damaged(number, error) from None

    def _entry(self, trial: Row) -> Entry:
        written, ended = trial.attributes, trial.finished
        try:
            return Entry(
                number=trial.number,
                model=WrittenModel(
                    written["architecture"],
                    from_json(written["shorthand"]),
                    loads_in.read(written.get("loads_in")),
                    read=partial(self._model, trial.number),
                ),
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
        except (KeyError, ValueError) as error:
            raise _damaged(trial.number, error) from None

    def _model(self, number: int, text: str) -> Model:
        try:
            return self._models.read(from_json(text))
        except (ValueError, ArchitectureError) as error:
            raise _damaged(number, error) from None

    @property
    def corpus_digest(self) -> str:
        """What the text was when the run began, see `Corpus.digest`."""
        return str(self._said("corpus"))

    @property
    def exhausted(self) -> bool:
        """Whether the space had no new candidates any more."""
        return bool(self._said("exhausted"))

    def exhaust(self) -> None:
        """Records that the space has no new candidates."""
        self._writer.set("exhausted", True)

    @property
    def time_up(self) -> bool:
        """Whether a driver found the run's time to be up."""
        return bool(self._said("time_up"))

    def _said(self, name: str) -> Any:
        """What the ledger says of the whole run now; None where it does not say it."""
        with _told_when_it_cannot_be_read():
            return from_json(study_attributes(self._path, name).get(name, "null"))

    def end_time(self) -> None:
        """Records that the run's time is up, so that a later driver begins nothing in a last moment."""
        if not self.time_up:
            self._writer.set("time_up", True)

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
        return str(self._said("started"))

    @property
    def command(self) -> str:
        return str(self._said("command"))

    def close(self) -> None:
        if "_writer" in self.__dict__:
            self._writer.close()


def create(path: Path, config: RunConfig, *, started: str, corpus_digest: str = "") -> Ledger:
    """A new, empty ledger at `path`.

    started: when, for people.
    corpus_digest: of the text that the run reads.

    Raises RunError where it cannot be written.
    """
    from search.runs.ledger_writes import create_study

    attributes = {
        "layout": LAYOUT,
        "config": json.loads(config.model_dump_json()),
        "corpus": corpus_digest,
        "started": started,
        "command": " ".join(sys.argv),
    }
    maximized = {each.metric: each.maximize for each in config.parsed_objectives()}
    writer = create_study(path, maximized, attributes)
    ledger = Ledger(path)
    ledger._writer = writer
    return ledger


def open_ledger(path: Path) -> Ledger:
    """An existing ledger. Raises RunError if it is missing, damaged or of another layout."""
    if not path.is_file():
        raise RunError(f"{path}: no ledger there; expected the file that `frontrunner search` writes")
    try:
        layout = from_json(study_attributes(path, "layout").get("layout", "null"))
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise RunError(f"{path}: does not answer: {error}") from None
        raise RunError(f"{path}: not a ledger of frontrunner: {error}") from None
    if layout != LAYOUT:
        raise RunError(
            f"{path}: written by another version of frontrunner (layout {layout}, expected {LAYOUT})"
        )
    try:
        rows(path, only=-1, keys=_READ)  # there is none, but its columns have to be there
        return Ledger(path)
    except (KeyError, sqlite3.Error) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{path}: cannot be read: {reason}") from None


def _damaged(number: int, error: Exception) -> RunError:
    return RunError(f"candidate {number} of the ledger is damaged: {flat(error, at_most=200)}")


@contextmanager
def _told_when_it_cannot_be_read() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise refused("read", str(error)) from error
