"""What tests of searches share."""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.storages._rdb.storage import _VersionManager
from optuna.trial import TrialState, create_trial

from search.runs import ledger as ledger_module
from search.runs import ledger_writes
from search.runs.ledger_rows import Row


@pytest.fixture(autouse=True, scope="session")
def _optunas_tables_are_looked_up_once() -> Iterator[None]:
    """Each time that a ledger is opened, Optuna imports its fifteen migrations to learn the latest one."""
    script, read = _VersionManager._create_alembic_script, list[Any]()

    def kept(manager: _VersionManager) -> Any:
        if not read:
            read.append(script(manager))
        return read[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", kept)
        yield


_STUDY_ID = 0  # of the only study in a storage


class _Memory(InMemoryStorage):
    """Stands where SQLite does, which takes most of the time of a search whose evaluations are pretended."""

    engine = SimpleNamespace(dispose=lambda: None)


def _rows(
    storage: InMemoryStorage,
    *,
    but: Collection[int] = (),
    only: int | None = None,
    keys: Sequence[str] = (),
    of_ended: bool = True,
) -> list[Row]:
    """What `ledger_rows.rows` reads from the tables that are not there."""
    return [
        Row(
            trial._trial_id,
            trial.number,
            trial.state.is_finished(),
            trial.datetime_complete.astimezone(UTC) if trial.datetime_complete else None,
            {
                key: json.dumps(value)
                for key, value in trial.user_attrs.items()
                if (not keys or key in keys) and (of_ended or not trial.state.is_finished())
            },
        )
        for trial in storage.get_all_trials(_STUDY_ID, deepcopy=False)
        if trial.number not in but and only in (None, trial.number)
    ]


def _study_attributes(storage: InMemoryStorage, *keys: str) -> dict[str, str]:
    """What `ledger_rows.study_attributes` reads from the tables that are not there."""
    attributes = storage.get_study_user_attrs(_STUDY_ID)
    return {key: json.dumps(value) for key, value in attributes.items() if not keys or key in keys}


def _begin_trial(
    storage: InMemoryStorage,
    study_id: int,
    number: int,
    *,
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    attributes: dict[str, str],
) -> int:
    """What `ledger_writes.begin_trial` does to the tables that are not there."""
    trial = create_trial(
        state=TrialState.RUNNING,
        params=params,
        distributions=distributions,
        user_attrs={key: json.loads(value) for key, value in attributes.items()},
    )
    assert storage.get_n_trials(study_id) == number
    return storage.create_new_trial(study_id, trial)


def _change_trial(
    storage: InMemoryStorage,
    trial_id: int,
    attributes: dict[str, str],
    *,
    state: TrialState | None = None,
    values: Sequence[float] = (),
) -> None:
    """What `ledger_writes.change_trial` does to the tables that are not there."""
    for key, value in attributes.items():
        storage.set_trial_user_attr(trial_id, key, json.loads(value))
    if state is not None:
        storage.set_trial_state_values(trial_id, state, values or None)


@pytest.fixture
def ledgers_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledgers are kept in this process until the test ends, for tests of what is written into them."""
    kept: dict[Path, _Memory] = {}

    def storage(path: Path) -> _Memory:
        path.touch()
        return kept.setdefault(path.resolve(), _Memory())

    def rows(path: Path, **options: Any) -> list[Row]:
        return _rows(storage(path), **options)

    def study_attributes(path: Path, *keys: str) -> dict[str, str]:
        return _study_attributes(storage(path), *keys)

    monkeypatch.setattr(ledger_writes, "_storage", storage)
    monkeypatch.setattr(ledger_writes, "begin_trial", _begin_trial)
    monkeypatch.setattr(ledger_writes, "change_trial", _change_trial)
    monkeypatch.setattr(ledger_module, "study_attributes", study_attributes)
    for module in (ledger_module, ledger_writes):
        monkeypatch.setattr(module, "rows", rows)
