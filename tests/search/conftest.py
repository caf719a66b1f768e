"""What tests of searches share."""

from collections.abc import Iterator
from typing import Any

import pytest
from optuna.storages._rdb.storage import _VersionManager


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
