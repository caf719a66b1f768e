"""Writes the trials of a ledger, each change as one transaction.

Optuna's own writing looks a trial up again for each attribute and each parameter, and every attribute is a
transaction: a tenth of a second of a processor for one candidate. So its tables are written as it writes
them. A process that is killed in between leaves all of a change, or nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import func, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session

from operators.base.errors import RunError


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
