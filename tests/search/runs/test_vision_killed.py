"""A search for models that see, killed while it trains, goes on as if it had not been."""

import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from profiler.process.worker import ProfilingWorker
from search.config.run import RunConfig, parse
from search.runs.entry import Entry
from search.runs.folder import RunFolder
from search.runs.ledger import open_ledger
from search.runs.run import drive_to_end, start
from tests.helpers.image_sources import colours
from tests.helpers.vision_profiles import made_up
from tests.search.runs.test_vision_run import config_of

pytest.importorskip("PIL")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_locks")]

COUNT, KILLS = 2, 2
# Real trainings and made-up measurements.
DRIVE = """
import sys
from pathlib import Path
from profiler.process.worker import ProfilingWorker
from search.runs.folder import RunFolder
from search.runs.run import drive_to_end
from tests.helpers.vision_profiles import made_up

ProfilingWorker.profile = made_up
drive_to_end(RunFolder(Path(sys.argv[1])), executor="inline", address=None)
"""


def entries_of(folder: RunFolder) -> tuple[Entry, ...]:
    with closing(open_ledger(folder.ledger)) as ledger:
        return ledger.entries()


def repeatable(entry: Entry) -> tuple[Any, ...]:
    """What of an entry does not depend on the clock."""
    evaluation = entry.evaluation
    assert evaluation is not None
    assert evaluation.vision is not None
    vision = evaluation.vision.model_dump(exclude={"seconds"})
    return entry.proposal, entry.order, evaluation.status, evaluation.metrics, vision


def test_kill_9_while_it_trains_loses_nothing_and_changes_nothing(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, cache in (("killed", "a"), ("undisturbed", "b")):  # each trains its decoders itself
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        changes = {"candidates": COUNT, "repeats": 0}
        config = parse(config_of(tiny_config, colours(tmp_path / "data", 24), **changes), where="run")
        start(config, results=tmp_path, name=name)
    monkeypatch.setattr(ProfilingWorker, "profile", made_up)
    undisturbed = drive_to_end(RunFolder(tmp_path / "undisturbed"), executor="inline", address=None).entries
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a"))
    folder, rng, acknowledged = RunFolder(tmp_path / "killed"), random.Random(1), dict[int, Entry]()
    for attempt in range(KILLS + 1):
        with subprocess.Popen([sys.executable, "-c", DRIVE, str(folder.path)]) as process:
            if attempt < KILLS:
                _await_one_more(folder, len(acknowledged), seconds=rng.uniform(0.0, 0.3))
                process.kill()
        now = {entry.number: entry for entry in entries_of(folder) if entry.evaluation}
        assert {number: now[number] for number in acknowledged} == acknowledged
        assert all(folder.weights(number).is_file() for number in now)
        acknowledged = now
    assert process.returncode == 0
    assert len(acknowledged) == COUNT
    assert list(map(repeatable, entries_of(folder))) == list(map(repeatable, undisturbed))


def _await_one_more(folder: RunFolder, ended: int, *, seconds: float) -> None:
    """Waits until a further candidate was begun, or one more has ended, and then for so many seconds."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        entries = entries_of(folder)
        if len(entries) > ended and len(entries) > sum(entry.evaluation is not None for entry in entries):
            break
        time.sleep(0.05)
    time.sleep(seconds)
