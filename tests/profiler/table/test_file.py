"""The latency table in its file: read as written, damaged, of other conditions, extended by several
processes.
"""

import json
import multiprocessing
from pathlib import Path

import pytest

from operators.base.errors import TableError
from operators.base.threads import torch_threads
from operators.rope import Rope
from profiler.device.device import Device, open_device
from profiler.table.build import build
from profiler.table.latency_table import LatencyTable, conditions, default_path
from profiler.table.parts import Entry, Rest
from tests.helpers.made_up_device import DECODE, PREFILL, hybrid

pytestmark = pytest.mark.usefixtures("own_locks")


@pytest.mark.usefixtures("made_up")
def test_a_table_is_read_as_it_was_written(table: LatencyTable, cpu: Device) -> None:
    build(table, [hybrid(), hybrid(rope=Rope(theta=5e5))], [DECODE, PREFILL], device=cpu)
    again = LatencyTable.open(table.path, cpu)
    assert again.entries == table.entries
    assert len(again.entries) == 9  # the angle of rotary positions changes no kernel
    assert again.predict(hybrid(), batch=1, context=256) == table.predict(hybrid(), batch=1, context=256)
    assert again.conditions == conditions(cpu)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("name", ["name", "torch", "threads", "code"])
def test_entries_of_other_conditions_are_never_mixed_in(table: LatencyTable, cpu: Device, name: str) -> None:
    build(table, [hybrid("m f")], [DECODE], device=cpu)
    stored = json.loads(table.path.read_text())
    stored["conditions"][name] = "other"
    table.path.write_text(json.dumps(stored))
    here = conditions(cpu)[name]
    with pytest.raises(TableError) as opened:
        LatencyTable.open(table.path, cpu)
    with pytest.raises(TableError) as extended:
        build(table, [hybrid()], [DECODE], device=cpu)
    for caught in (opened, extended):
        assert f"measured under other conditions: {name} other there, {here} here" in str(caught.value)
    assert json.loads(table.path.read_text()) == stored
    assert len(LatencyTable.read(table.path).entries) == 3


def test_threads_are_a_condition(cpu: Device, tmp_path: Path) -> None:
    one = default_path(cpu, folder=tmp_path)
    with torch_threads(2):
        assert default_path(cpu, folder=tmp_path) != one
    assert default_path(cpu, folder=tmp_path) == one


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": 3, "entries": []}', '{"format": 4, "conditions": {}, "entries": []}', "\x00"],
)
def test_a_damaged_table_is_said_to_be_one(table: LatencyTable, cpu: Device, content: str) -> None:
    table.path.write_text(content)
    for read in (
        lambda: LatencyTable.read(table.path),
        lambda: LatencyTable.open(table.path, cpu),
        lambda: table.add([]),
    ):
        with pytest.raises(TableError, match="no latency table, or a damaged one: ") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_table_that_cannot_be_read_or_written_is_one_line(
    table: LatencyTable, tmp_path: Path, cpu: Device
) -> None:
    with pytest.raises(TableError, match=r"none\.json: cannot be read: No such file"):
        LatencyTable.read(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(TableError, match="cannot be written: "):
        LatencyTable.open(tmp_path / "file" / "table.json", cpu).add([])


def _add(path: Path, widths: range) -> None:
    table = LatencyTable.open(path, open_device("cpu"))
    for width in widths:
        what = Rest(vocabulary=512, tied_embeddings=True)
        table.add(
            [
                Entry(
                    phase="decode",
                    batch=1,
                    context=1,
                    width=width,
                    rope=False,
                    what=what,
                    ms=1.0,
                    error_ms=0.0,
                    rounds=10,
                )
            ]
        )


def test_processes_that_extend_a_table_at_once_lose_nothing(tmp_path: Path) -> None:
    path, fork = tmp_path / "table.json", multiprocessing.get_context("fork")
    processes = [fork.Process(target=_add, args=(path, range(first, first + 8))) for first in (0, 100, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    widths = {entry.width for entry in LatencyTable.read(path).entries}
    assert widths == {first + number for first in (0, 100, 200) for number in range(8)}
