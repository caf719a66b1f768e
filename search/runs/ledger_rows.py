"""Reads a ledger's tables as they are, by Python's own SQLite.

Optuna's own reading makes an object of every parameter and value of every trial: tens of seconds and a
gigabyte for ten thousand candidates, of which a run needs the attributes alone. To import it takes longer
than to read a small run. Attributes are left as the JSON that they are written in: to read an evaluation's
JSON and to validate it is one step. A trial's attributes are written before its state or with it: a trial
that has ended is whole.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from operators.base.errors import RunError

STUDY = "frontrunner"
LOCK_TIMEOUT_S = 20.0  # another program that reads or writes the file is done within that
# How Optuna names the states of trials that have ended.
_ENDED = ("COMPLETE", "PRUNED", "FAIL")
_MOST = 2**63 - 1  # the largest whole number of SQLite
# Trials that are asked for by their ids; of more, all are read.
_FEW = 500
_TRIALS = (
    "SELECT trial_id, number, state, datetime_complete FROM trials "
    "WHERE study_id = (SELECT study_id FROM studies WHERE study_name = :study)"
)
_ATTRIBUTES = (
    "SELECT trial_id, key, trial_user_attributes.value_json FROM trial_user_attributes WHERE trial_id IN "
    "(SELECT trial_id FROM trials "
    "WHERE study_id = (SELECT study_id FROM studies WHERE study_name = :study))"
)
_STUDY_ATTRIBUTES = (
    "SELECT key, value_json FROM study_user_attributes "
    "WHERE study_id = (SELECT study_id FROM studies WHERE study_name = :study)"
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
    path: Path,
    *,
    but: Collection[int] = (),
    only: int | None = None,
    keys: Sequence[str] = (),
    of_ended: bool = True,
) -> list[Row]:
    """The trials of a ledger by number, with their attributes.

    path: of the ledger.
    but: numbers of trials to leave out.
    only: the number of a trial to which all others are left out.
    keys: the attributes to read; () for all.
    of_ended: whether trials that have ended get their attributes too.

    Raises sqlite3.Error.
    """
    if only is not None and only > _MOST:
        return []
    with _connected(path) as connection:
        chosen = "" if only is None else " AND number = :only"
        asked = {"study": STUDY, "only": only}
        trials = connection.execute(f"{_TRIALS}{chosen} ORDER BY number", asked).fetchall()
        zone = _zone()
        found = [
            Row(
                trial_id,
                number,
                state in _ENDED,
                ended and datetime.fromisoformat(ended).replace(tzinfo=zone).astimezone(UTC),
            )
            for trial_id, number, state, ended in trials
            if number not in but
        ]
        wanted = {row.trial_id: row.attributes for row in found if of_ended or not row.finished}
        query = _ATTRIBUTES
        if keys:
            query += f" AND key IN ({_listed(repr(key) for key in keys)})"
        if len(wanted) <= _FEW:
            query += f" AND trial_id IN ({_listed(wanted)})"
        for trial_id, key, value in connection.execute(query, {"study": STUDY}):
            if trial_id in wanted:
                wanted[trial_id][key] = value
    return found


def study_attributes(path: Path, *keys: str) -> dict[str, str]:
    """What a ledger says of the whole run: by name, each as JSON.

    keys: names to read; none for all.

    Raises sqlite3.Error.
    """
    chosen = f" AND key IN ({_listed(repr(key) for key in keys)})" if keys else ""
    with _connected(path) as connection:
        return dict(connection.execute(f"{_STUDY_ATTRIBUTES}{chosen}", {"study": STUDY}))


def refused(done: Literal["read", "written"], reason: str) -> RunError:
    """The error of a database that refuses, as on a full disk; what it held before stays whole.

    reason: the database's own.
    """
    return RunError(
        f"the ledger cannot be {done} ({reason}); it is whole, and `frontrunner resume` goes on from there"
    )


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    # For writing too: the first that opens a file after its writer was killed has to undo what that began.
    uri = f"{path.resolve().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S)
    try:
        yield connection
    finally:
        connection.close()


@cache
def _zone() -> tzinfo | None:
    """Of times in the tables: Optuna 5 writes UTC, earlier versions the time zone of the machine (None)."""
    return UTC if int(version("optuna").partition(".")[0]) >= 5 else None


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
