"""Reads the trials of a ledger at once.

Optuna's own reading makes an object of every parameter and value of every trial: tens of seconds and a
gigabyte for ten thousand candidates, of which a run needs the attributes alone. So its tables are read as
they are, and attributes are left as the JSON that they are written in: to read an evaluation's JSON and to
validate it is one step. A trial's attributes are written before its state or with it: a trial that has
ended is whole.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import text

# Of times in the tables: Optuna 5 writes UTC, earlier versions the time zone of the machine (None).
_ZONE = UTC if hasattr(models.TrialModel, "_datetime_complete_utc") else None
# Trials that are asked for by their ids; of more, all are read.
_FEW = 500
_TRIALS = (
    "SELECT trial_id, number, state, datetime_complete FROM trials WHERE study_id = :study ORDER BY number"
)
_ATTRIBUTES = (
    "SELECT trial_id, key, trial_user_attributes.value_json FROM trial_user_attributes "
    "WHERE trial_id IN (SELECT trial_id FROM trials WHERE study_id = :study)"
)


@dataclass(frozen=True)
class Row:
    """One trial.

    finished: whether it has ended.
    completed: when it did.
    attributes: by name, each as JSON.
    """

    trial_id: int
    number: int
    finished: bool
    completed: datetime | None
    attributes: dict[str, str] = field(default_factory=dict)


def rows(
    storage: RDBStorage,
    study_id: int,
    *,
    but: Collection[int] = (),
    only: int | None = None,
    keys: Sequence[str] = (),
    of_ended: bool = True,
) -> list[Row]:
    """The trials of a study by number, with their attributes.

    but: numbers of trials to leave out.
    only: the number of a trial to which all others are left out.
    keys: the attributes to read; () for all.
    of_ended: whether trials that have ended get their attributes too.

    Raises SQLAlchemyError.
    """
    with storage.engine.connect() as connection:
        trials = connection.execute(text(_TRIALS), {"study": study_id}).all()
        found = [
            Row(
                trial_id,
                number,
                TrialState[state].is_finished(),
                ended and datetime.fromisoformat(ended).replace(tzinfo=_ZONE).astimezone(UTC),
            )
            for trial_id, number, state, ended in trials
            if number not in but and only in (None, number)
        ]
        wanted = {row.trial_id: row.attributes for row in found if of_ended or not row.finished}
        query = _ATTRIBUTES
        if keys:
            query += f" AND key IN ({_listed(repr(key) for key in keys)})"
        if len(wanted) <= _FEW:
            query += f" AND trial_id IN ({_listed(wanted)})"
        for trial_id, key, value in connection.execute(text(query), {"study": study_id}).all():
            if trial_id in wanted:
                wanted[trial_id][key] = value
    return found


def _listed(values: Iterator[object] | Collection[object]) -> str:
    return ", ".join(map(str, values))
