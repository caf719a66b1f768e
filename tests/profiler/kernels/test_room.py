"""A device's memory, shared out to processes."""

from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe
from threading import Thread

import pytest

from operators import Architecture
from operators.base.errors import CrashError
from profiler.kernels import preparer as module
from profiler.kernels.prepare import Job, Workload, described
from profiler.kernels.preparer import Done, Preparer, Wants
from profiler.kernels.room import CONTEXT_BYTES, GIVEN_OUT, Room
from profiler.kernels.warm import jobs

FREE = int(100 / GIVEN_OUT) + 2 * CONTEXT_BYTES  # so that two processes have 100 bytes
JOB = jobs([Architecture.from_shorthand("f", width=64, vocabulary=2)], Workload(), "cpu")[0]


def _waits(take: Callable[[], None]) -> Thread:
    thread = Thread(target=take, daemon=True)
    thread.start()
    thread.join(0.05)
    return thread


def test_more_than_there_is_waits_until_enough_is_given_back() -> None:
    room = Room(2)
    room.take(60, FREE)
    room.take(40, 0)  # the first one said how much there is
    late = _waits(lambda: room.take(30, FREE))
    assert late.is_alive()
    room.give_back(40)
    late.join(5)
    assert not late.is_alive()


def test_what_exceeds_the_total_is_alone() -> None:
    room = Room(2)
    room.take(10, FREE)
    large = _waits(lambda: room.take(1000, FREE))
    assert large.is_alive()
    room.give_back(10)
    large.join(5)
    assert not large.is_alive()
    assert _waits(lambda: room.take(1, FREE)).is_alive()


class Spoken:
    """A process that says what a test tells it to, and then ends."""

    def __init__(self, *_: str, called: str) -> None:
        self.connection, theirs = Pipe()
        started.append(self)
        Thread(target=self._speak, args=(theirs, next(scripts)), daemon=True).start()

    def _speak(self, connection: Connection, messages: list[object]) -> None:
        connection.recv()
        for message in messages:
            connection.send(message)
            if isinstance(message, Wants) and message.size > 0:
                connection.recv()
        if not isinstance(messages[-1], Done):
            connection.close()

    def death(self, phase: str) -> CrashError:
        return CrashError(f"it ended while {phase}")

    def kill(self) -> None:
        pass

    def close(self) -> None:
        self.connection.close()


started: list[Spoken] = []
scripts: Iterator[list[object]] = iter(())


def _asked(monkeypatch: pytest.MonkeyPatch, room: Room, *said: list[object]) -> list[str]:
    """The problems of jobs that run in processes that say this."""
    started.clear()
    monkeypatch.setitem(globals(), "scripts", iter(said))
    monkeypatch.setattr(module, "Child", Spoken)
    preparer = Preparer(room)
    return [preparer.run(JOB).problem for _ in said]


def _done(job: Job, *, fit: bool) -> Done:
    return Done(described(job, problem="" if fit else "an illegal access"), fit)


def test_a_process_that_ends_gives_its_room_back_and_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(2)
    problems = _asked(
        monkeypatch, room, [Wants(90, FREE)], [Wants(90, FREE), Wants(-90, FREE), _done(JOB, fit=True)]
    )
    assert problems == ["CrashError: it ended while preparing swiglu", ""]
    assert len(started) == 2
    assert not _waits(lambda: room.take(100, FREE)).is_alive(), "all of it is there"


def test_a_process_that_is_not_fit_any_more_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = _asked(monkeypatch, Room(2), [_done(JOB, fit=False)], [_done(JOB, fit=True)])
    assert problems == ["an illegal access", ""]
    assert len(started) == 2
