"""A process that compiles and runs jobs, and is replaced when one of them breaks it.

This is the side that asks. `profiler.kernels.preparer_process` is the side that works. A shape that a library
cannot serve may end the process, or leave its CUDA context unusable: that is the outcome of this shape alone.
"""

from dataclasses import dataclass
from pathlib import Path

from operators.base.errors import flat
from profiler.kernels.prepare import Compiled, Job, Warmed, described
from profiler.kernels.room import Room
from profiler.process.child_process import Child


@dataclass(frozen=True)
class Request:
    """A job to compile, or to run.

    claims: as for `profiler.kernels.prepare.compile_kernels`
    """

    job: Job
    compiles: bool
    claims: Path | None = None


@dataclass(frozen=True)
class Wants:
    """Asks for room on the device before it is used. An answer lets the process go on.

    size: bytes; negative to give them back, which has no answer
    free: bytes that the device has left
    """

    size: int
    free: int


@dataclass(frozen=True)
class Done:
    """The outcome, and whether the process can go on."""

    outcome: Compiled | Warmed
    fit: bool


class Preparer:
    """It ends with the thread that first asks, and must not be shared between threads. Close it."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._child: Child | None = None

    def compile(self, job: Job, claims: Path | None) -> Compiled:
        """Compiles what the job needs (see `profiler.kernels.prepare.compile_kernels`)."""
        outcome = self._asked(Request(job, True, claims))
        return outcome if isinstance(outcome, Compiled) else Compiled(outcome)

    def run(self, job: Job) -> Warmed:
        """Runs the job (see `profiler.kernels.prepare.run`)."""
        outcome = self._asked(Request(job, False))
        return outcome.warmed if isinstance(outcome, Compiled) else outcome

    def kill(self) -> None:
        """Ends what another thread is asking for. That thread is told of a crash."""
        if self._child is not None:
            self._child.kill()

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _asked(self, request: Request) -> Compiled | Warmed:
        if self._child is None:
            self._child = Child("profiler.kernels.preparer_process", called="compiling")
        taken = 0
        try:
            self._child.connection.send(request)
            while not isinstance(message := self._child.connection.recv(), Done):
                wants: Wants = message
                if wants.size < 0:
                    self._room.give_back(-wants.size)
                else:
                    self._room.take(wants.size, wants.free)
                    self._child.connection.send(None)
                taken += wants.size
            if not message.fit:
                self.close()
            return message.outcome
        except (EOFError, OSError):
            death = self._child.death(f"preparing {request.job.layer.operator}")
            self.close()
            return described(request.job, problem=flat(f"{type(death).__name__}: {death}", at_most=300))
        finally:
            if taken:
                self._room.give_back(taken)
