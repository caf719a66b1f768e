"""The device's lock between real processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import pytest

from operators.base.errors import DeviceError
from profiler.device.device import Device
from profiler.device.lock import Standing, exclusive, observed, outside, shared
from tests.helpers.device_lock import free

FORK = multiprocessing.get_context("fork")
HOLDER = """
import sys, time
from profiler.device import lock
with getattr(lock, sys.argv[1])("cpu"):
    print("held", flush=True)
    time.sleep(60)
"""

pytestmark = pytest.mark.usefixtures("own_locks")


@contextmanager
def processes(*tasks: tuple[Callable[..., None], tuple[Any, ...]]) -> Iterator[None]:
    """Runs the tasks beside the body, and expects each to end well."""
    started = [FORK.Process(target=task, args=arguments) for task, arguments in tasks]
    for process in started:
        process.start()
    try:
        yield
        for process in started:
            process.join(20)
        assert [process.exitcode for process in started] == [0] * len(started)
    finally:
        for process in started:
            process.kill()


@contextmanager
def unrelated_holder(kind: str) -> Iterator[subprocess.Popen[str]]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, kind], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def count_up(file: Path, times: int) -> None:
    for _ in range(times):
        with exclusive("cpu"):
            found = int(file.read_text())
            time.sleep(0.001)
            file.write_text(str(found + 1))


def meet(barrier: Barrier) -> None:
    with shared("cpu"):
        barrier.wait(10)


def watch(file: Path, times: int) -> None:
    for _ in range(times):
        with shared("cpu"):
            before = file.read_text()
            time.sleep(0.002)
            assert file.read_text() == before


def come_and_go(inside: Event, stop: Event) -> None:
    while not stop.is_set():
        with shared("cpu"):
            inside.set()
            time.sleep(0.05)


def test_one_exclusive_holder_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("0")
    with processes(*[(count_up, (file, 15))] * 4):
        pass
    assert file.read_text() == "60"


def test_shared_holders_are_inside_together() -> None:
    barrier = FORK.Barrier(3)
    with processes(*[(meet, (barrier,))] * 3):
        pass


def test_shared_holders_never_meet_an_exclusive_one(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("0")
    with processes(*[(watch, (file, 20))] * 2, (count_up, (file, 20))):
        pass
    assert file.read_text() == "20"


def test_a_device_s_memory_has_a_lock_of_its_own() -> None:
    with exclusive("cpu"), shared("cpu", of="memory"):
        with pytest.raises(DeviceError), exclusive("cpu", of="memory", timeout_s=0):
            pass
        with shared("cpu", of="memory", timeout_s=0):
            pass
    with exclusive("cpu", of="memory"), shared("cpu"):
        pass


def test_a_stream_of_shared_holders_does_not_starve_an_exclusive_one() -> None:
    inside, stop = FORK.Event(), FORK.Event()
    with processes(*[(come_and_go, (inside, stop))] * 4):
        assert inside.wait(10)
        for _ in range(3):
            with exclusive("cpu", timeout_s=10):
                pass
        stop.set()


@pytest.mark.parametrize("kind", ["exclusive", "shared"])
def test_a_timeout_names_the_holder_and_kill_9_releases(kind: str) -> None:
    with unrelated_holder(kind) as holder:
        with (
            pytest.raises(DeviceError, match=rf"^device cpu is in use by process {holder.pid}: ") as caught,
            exclusive("cpu", timeout_s=0.05),
        ):
            pass
        assert "\n" not in str(caught.value)
        if kind == "exclusive":
            with pytest.raises(DeviceError, match=f"process {holder.pid}"), shared("cpu", timeout_s=0.05):
                pass
        else:
            with shared("cpu", timeout_s=0.05):
                pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with exclusive("cpu", timeout_s=5):
            pass


def test_an_error_inside_releases() -> None:
    for lock in (exclusive, shared):
        with pytest.raises(ZeroDivisionError), lock("cpu"):
            raise ZeroDivisionError
        with exclusive("cpu", timeout_s=0):
            pass


def test_an_observer_is_told_how_it_stands_to_the_device() -> None:
    told: list[Standing] = []
    with observed(told.append):
        with shared("cpu"):
            told.append("free")  # stands for what is done inside
        with pytest.raises(ZeroDivisionError), exclusive("cpu"):
            raise ZeroDivisionError
        with unrelated_holder("exclusive"), pytest.raises(DeviceError), exclusive("cpu", timeout_s=0):
            pass
    with shared("cpu"):
        pass
    assert told == ["waiting", "shared", "free", "free", "waiting", "exclusive", "free", "waiting", "free"]


def test_the_lock_files_belong_to_the_user_alone(tmp_path: Path) -> None:
    with exclusive("cpu"):
        pass
    folder = tmp_path / f"frontrunner-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.iterdir())
    folder.chmod(0o755)
    with (
        pytest.raises(DeviceError, match="expected a folder that belongs to this user alone"),
        exclusive("cpu"),
    ):
        pass


def test_an_unknown_device_has_no_lock() -> None:
    with pytest.raises(DeviceError, match="expected cpu, cuda or cuda:N"), exclusive("tpu"):
        pass


def hold_alone(inside: Event) -> None:
    with exclusive("cpu", timeout_s=10):
        inside.set()
        time.sleep(0.3)


def test_who_shares_gives_way_to_who_wants_the_device_alone_and_comes_back() -> None:
    inside, waited = FORK.Event(), 0.0
    standings: list[Standing] = []
    with observed(standings.append), shared("cpu") as give_way:
        assert give_way() == 0.0
        with processes((hold_alone, (inside,))):
            assert not inside.wait(0.2)
            while waited == 0.0:
                waited = give_way()
            assert inside.is_set()
            assert waited >= 0.25
        assert give_way() == 0.0
        assert standings == ["waiting", "shared", "waiting", "shared"]
        with pytest.raises(DeviceError, match="in use"), exclusive("cpu", timeout_s=0.05):
            pass


def test_who_gives_way_waits_for_its_own_work_first_and_only_where_another_wants_the_device(
    cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, waited = FORK.Event(), 0.0
    inside_when_done: list[bool] = []
    monkeypatch.setattr(type(cpu), "synchronize", lambda _: inside_when_done.append(inside.is_set()))
    with shared("cpu") as give_way:
        assert give_way() == 0.0
        assert inside_when_done == []
        with processes((hold_alone, (inside,))):
            while waited == 0.0:
                waited = give_way()
    assert inside_when_done == [False]


def test_outside_the_device_is_free_and_afterwards_held_again() -> None:
    def fail() -> None:
        with outside():
            raise ValueError("does not compile")

    with outside():
        pass
    with shared("cpu"):
        assert not free()
        with outside():
            assert free()
        assert not free()
        with pytest.raises(ValueError, match="does not compile"):
            fail()
        assert not free()
    assert free()


def test_an_observer_is_told_of_work_outside() -> None:
    standings: list[Standing] = []
    with observed(standings.append), shared("cpu"), outside():
        pass
    assert standings == ["waiting", "shared", "free", "waiting", "shared", "free"]


def test_the_wait_to_come_back_is_told_once() -> None:
    inside = FORK.Event()
    with shared("cpu") as give_way:
        with processes((hold_alone, (inside,))):
            with outside():
                assert inside.wait(20)
            assert give_way() >= 0.2
        assert give_way() == 0.0


def test_outside_a_device_its_memory_is_still_held_and_of_several_devices_none_is_left() -> None:
    with shared("cpu", of="memory"), shared("cpu"):
        with outside():
            assert free()
            with pytest.raises(DeviceError), exclusive("cpu", of="memory", timeout_s=0.05):
                pass
        with shared("cpu"), outside():
            assert not free()
