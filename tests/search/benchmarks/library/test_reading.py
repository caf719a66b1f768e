"""The benchmark of commands that read a run, at a small scale."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from search.benchmarks.library import reading


def test_each_command_is_timed_on_the_same_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "CANDIDATES", 6)
    monkeypatch.setattr(reading, "TIMES", 1)
    monkeypatch.setattr(reading, "COMMANDS", {"status": "status RUN"})  # one: each takes a second or so
    out = StringIO()
    first = reading.reading("cpu", Console(file=out))
    assert first.figures["candidates"] == 6
    names = {*reading.COMMANDS, "import_torch"}
    assert {name for name in first.figures if name.endswith("_cpu_s")} == {f"{name}_cpu_s" for name in names}
    assert all(first.figures[f"{name}_s"] > 0 for name in names)
    (folder,) = first.folders
    made = (folder / "ledger.db").stat().st_mtime_ns
    times = iter([(3.0, 2.0), (8.0, 7.0), (1.0, 1.0), (9.0, 8.0), (2.0, 1.5), (7.0, 6.0)])
    monkeypatch.setattr(reading, "TIMES", 3)
    monkeypatch.setattr(reading, "_timed", lambda line: next(times))
    second = reading.reading("cpu", Console(file=out)).figures
    assert (second["status_s"], second["status_cpu_s"], second["import_torch_s"]) == (2.0, 1.5, 8.0)
    assert (folder / "ledger.db").stat().st_mtime_ns == made
    assert out.getvalue().count("making up 6 evaluations") == 1
