"""Writes a ledger, each change as one transaction. Only a driver imports this, as Optuna takes a second.

Optuna's own writing looks a trial up again for each attribute and each parameter, and every attribute is a
transaction: a tenth of a second of a processor for one candidate. So its tables are written as it writes
them. A process that is killed in between leaves all of a change, or nothing.
"""

import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from pydantic_core import from_json
from sqlalchemy import func, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from operators.base.errors import RunError, flat
from search.runs import ledger_rows
from search.runs.entry import REJECTED
from search.runs.flat_parameters import Parameter
from search.runs.ledger_rows import STUDY, rows

# What a database that refuses raises through Optuna, SQLAlchemy, and Python's own SQLite.
_REFUSALS = (StorageInternalError, SQLAlchemyError, sqlite3.Error)


class Writer:
    """Writes a ledger, and knows what it holds. Opened by `create_study` or `open_writer`.

    trials: number of each candidate -> the id of its trial.
    acknowledged: numbers of those that have an evaluation.
    attempts: of those that have none, each time that the evaluation was begun, as plain values.
    """

    def __init__(self, path: Path, storage: RDBStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id
        trials = rows(path, keys=("attempts",), of_ended=False)
        self.trials = {trial.number: trial.trial_id for trial in trials}
        self.acknowledged = {trial.number for trial in trials if trial.finished}
        self.attempts = {
            trial.number: list(from_json(trial.attributes["attempts"]))
            for trial in trials
            if "attempts" in trial.attributes
        }

    def propose(
        self, number: int, parameters: Mapping[str, Parameter], attributes: Mapping[str, str]
    ) -> None:
        """Adds a candidate.

        parameters: of the trial, by name.
        attributes: by name, each as JSON.

        Raises RunError.
        """
        with _told():
            self.trials[number] = begin_trial(
                self._storage,
                self._study_id,
                number,
                params={name: parameter.value for name, parameter in parameters.items()},
                distributions={name: _distribution(each) for name, each in parameters.items()},
                attributes=attributes,
            )

    def change(self, number: int, attributes: Mapping[str, str]) -> None:
        """Adds attributes to a candidate without an evaluation. Raises RunError where it has one."""
        trial_id = self._unfinished(number)
        with _told():
            change_trial(self._storage, trial_id, attributes)

    def end(
        self, number: int, attributes: Mapping[str, str], status: str, values: Sequence[float] = ()
    ) -> None:
        """Adds attributes to a candidate without an evaluation, and ends it. Raises RunError.

        status: of its evaluation.
        values: of the objectives where the status is `ok`.
        """
        trial_id = self._unfinished(number)
        rejected = TrialState.PRUNED if status in REJECTED else TrialState.FAIL
        state = TrialState.COMPLETE if status == "ok" else rejected
        with _told():
            change_trial(self._storage, trial_id, attributes, state=state, values=values)
        self.acknowledged.add(number)

    def _unfinished(self, number: int) -> int:
        """The id of a trial that has no evaluation yet. Raises RunError."""
        if number not in self.trials:
            raise RunError(f"the ledger has no candidate {number}")
        if number in self.acknowledged:
            raise RunError(f"candidate {number} of the ledger has its evaluation already")
        return self.trials[number]

    def set(self, key: str, value: Any) -> None:
        """Sets what the ledger says of the whole run, which is written as a whole. Raises RunError."""
        with _told():
            self._storage.set_study_user_attr(self._study_id, key, value)

    def close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()


def _distribution(parameter: Parameter) -> BaseDistribution:
    _, low, high = parameter
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high)
    return FloatDistribution(low, high)


def create_study(path: Path, maximized: Mapping[str, bool], attributes: Mapping[str, Any]) -> Writer:
    """A new ledger.

    maximized: whether more is better, by the metric of each objective, in their order.
    attributes: what it says of the whole run.

    Raises RunError where it cannot be written.
    """
    try:
        with _quiet_optuna():
            storage = _storage(path)
            directions: list[Literal["minimize", "maximize"]] = [
                "maximize" if more else "minimize" for more in maximized.values()
            ]
            study = optuna.create_study(study_name=STUDY, storage=storage, directions=directions)
            study.set_metric_names(list(maximized))
        for key, value in attributes.items():
            study.set_user_attr(key, value)
        return Writer(path, storage, study._study_id)
    except _REFUSALS as error:
        raise RunError(f"{path}: cannot be written: {_reason(error)}") from None


def open_writer(path: Path) -> Writer:
    """Opens an existing ledger for writing. Raises RunError."""
    with _told():
        try:
            with _quiet_optuna():
                storage = _storage(path)
                study = optuna.load_study(study_name=STUDY, storage=storage)
        except RuntimeError as error:  # Optuna's word for tables of another version of itself
            raise RunError(f"{path}: not a ledger of frontrunner: {flat(error, at_most=200)}") from None
        return Writer(path, storage, study._study_id)


@contextmanager
def _told() -> Iterator[None]:
    """Raises RunError where the database refuses, as on a full disk; what it held before stays whole."""
    try:
        yield
    except _REFUSALS as error:
        raise ledger_rows.refused("written", _reason(error)) from error


def _storage(path: Path) -> RDBStorage:
    url = URL.create("sqlite", database=str(path.resolve())).render_as_string()  # quotes ?, %, # and braces
    timeout = ledger_rows.LOCK_TIMEOUT_S
    return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": timeout}})


def _reason(error: Exception) -> str:
    """The database's own words for an error, on one line."""
    originals = (getattr(cause, "orig", None) for cause in (error, error.__cause__))
    return str(next(filter(None, originals), error)).splitlines()[0]


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


def begin_trial(
    storage: RDBStorage,
    study_id: int,
    number: int,
    *,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    attributes: Mapping[str, str],
) -> int:
    """Adds a trial that is RUNNING -> its id.

    number: the trial's number, which must be the next one.
    params, distributions: by name, with the same names.
    attributes: by name, each as JSON.

    Raises RunError where another process has added a trial, and SQLAlchemyError.
    """
    with Session(storage.engine) as session, session.begin():
        trial = models.TrialModel(study_id=study_id, number=number, state=TrialState.RUNNING)
        trial.datetime_start = datetime.now()  # Optuna changes it to the time zone that it stores
        session.add(trial)
        session.flush()  # from here on no other process can write
        before = select(func.count()).where(
            models.TrialModel.study_id == study_id, models.TrialModel.trial_id < trial.trial_id
        )
        if (expected := session.scalar(before)) != number:
            raise RunError(
                f"the ledger expected candidate {expected} next, got {number}: "
                "is another process writing to it?"
            )
        written = [
            {
                "trial_id": trial.trial_id,
                "param_name": name,
                "param_value": distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(distributions[name]),
            }
            for name, value in params.items()
        ]
        if written:
            session.execute(insert(models.TrialParamModel), written)
        _put(session, trial.trial_id, attributes)
        return int(trial.trial_id)


def change_trial(
    storage: RDBStorage,
    trial_id: int,
    attributes: Mapping[str, str],
    *,
    state: TrialState | None = None,
    values: Sequence[float] = (),
) -> None:
    """Adds attributes to a trial that has not ended, and ends it.

    attributes: by name, each as JSON. Those that are there already are replaced.
    state: how it ends; None where it goes on.
    values: of the objectives, for a trial that is COMPLETE.

    Raises RunError where the trial has ended, and SQLAlchemyError.
    """
    with Session(storage.engine) as session, session.begin():
        _put(session, trial_id, attributes)
        trial = session.get_one(models.TrialModel, trial_id)
        if trial.state.is_finished():
            raise RunError(
                f"candidate {trial.number} of the ledger has its evaluation already: "
                "is another process writing to it?"
            )
        for objective, value in enumerate(values):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            session.add(
                models.TrialValueModel(trial_id=trial_id, objective=objective, value=stored, value_type=kind)
            )
        if state is not None:
            trial.state, trial.datetime_complete = state, datetime.now()


def _put(session: Session, trial_id: int, attributes: Mapping[str, str]) -> None:
    new = sqlite.insert(models.TrialUserAttributeModel)
    statement = new.on_conflict_do_update(
        index_elements=["trial_id", "key"], set_={"value_json": new.excluded.value_json}
    )
    rows = [{"trial_id": trial_id, "key": key, "value_json": value} for key, value in attributes.items()]
    session.execute(statement, rows)
