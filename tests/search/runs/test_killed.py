"""A search whose process is killed at any moment goes on as if it had not been. The ledger is in SQLite."""

import dataclasses
import os
import random
import signal
import time

import pytest

from search.runs import ledger as ledger_module
from search.runs.folder import RunFolder
from tests.helpers.driving_process import driving
from tests.helpers.pretended_evaluations import PretendExecutor
from tests.helpers.pretended_search import searched

pytestmark = pytest.mark.slow

COUNT, KILLS = 30, 3


def test_kill_9_at_random_moments_loses_and_repeats_nothing(tmp_path, prepared):
    many = dataclasses.replace(prepared, config=prepared.config.model_copy(update={"candidates": COUNT}))
    undisturbed = searched(tmp_path / "undisturbed", many, PretendExecutor(capacity=2))
    (tmp_path / "killed").mkdir()
    folder = RunFolder(tmp_path / "killed")
    ledger_module.create(folder.ledger, many.config, started="now").close()
    rng, acknowledged = random.Random(1), {}
    for attempt in range(KILLS + 1):
        process = driving(folder, prepared.corpus)
        if attempt < KILLS:
            time.sleep(rng.uniform(0.0, 0.5))
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        entries = ledger_module.open_ledger(folder.ledger).entries()
        now = {entry.number: entry for entry in entries if entry.evaluation}
        assert {number: now[number] for number in acknowledged} == acknowledged
        acknowledged = now
    assert process.exitcode == 0
    assert len(acknowledged) == COUNT
    assert len({entry.architecture.digest() for entry in entries}) == COUNT
    assert sorted(entry.order for entry in entries) == list(range(COUNT))
    evaluated = (folder.path / "evaluated").read_text().split()
    assert len(evaluated) <= COUNT + KILLS * 2  # only what was under way at a kill is evaluated again
    assert [entry.proposal for entry in entries] == [entry.proposal for entry in undisturbed]
    assert [entry.evaluation for entry in entries] == [entry.evaluation for entry in undisturbed]
