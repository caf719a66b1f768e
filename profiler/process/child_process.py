"""A child process that works for this one: starting, asking and killing it, and finding out why it ended.

It is asked over a socket pair. Its standard output and error go to a file without a name. The last words in
it are the reason of a death.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from operators.base.errors import CrashError, DeviceError, OutOfMemoryError, flat

# How long a killed process may take to end (s).
KILL_TIMEOUT_S = 30.0
# How much of the end of its output is searched for the reason of a death.
_STDERR_BYTES = 2000
# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


class Child:
    """Runs `python -m MODULE SOCKET PARENT *arguments` in a process that ends with the starting thread.

    The module calls `settle_in` and sends pickled values. The process ends however the thread ends. Close it.

    called: its name in messages, as in `profiling`
    environment: variables that it has besides those of this process
    """

    def __init__(
        self, module: str, *arguments: str, called: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._called = called
        self.connection: Connection
        self.connection, theirs = Pipe()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid()), *arguments]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                env={**os.environ, **(environment or {}), "PYTHONPATH": own_path()},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def death(self, phase: str) -> CrashError | OutOfMemoryError:
        """Why a process that no longer answers has ended, with the last words that it wrote.

        phase: what the process did, as in `measuring`
        """
        try:
            code = self._process.wait(KILL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return CrashError(f"the {self._called} process stopped answering while {phase}")
        # This process does not ask after it has killed: the kill came from outside.
        if code == -signal.SIGKILL:
            return OutOfMemoryError(
                f"the {self._called} process was killed while {phase}, as the system does "
                "when memory runs out"
            )
        self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - _STDERR_BYTES))
        lines = self._output.read().decode(errors="replace").split("\n")
        said = " / ".join(flat(line) for line in lines if line.strip())[-300:]
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
        return CrashError(
            f"the {self._called} process ended {how} while {phase}" + (f": {said}" if said else "")
        )

    def kill(self) -> None:
        """Kills the process and returns at once; `close` waits for the end."""
        self._process.kill()

    def close(self) -> None:
        """Kills the process and waits for its end.

        Raises DeviceError if it does not end, which happens while a driver does not let it go.
        """
        self.kill()
        self.connection.close()
        self._output.close()
        try:
            self._process.wait(KILL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"process {self.pid} did not end within {KILL_TIMEOUT_S:g} s of being killed"
            ) from None


def own_path() -> str:
    """The path of this process for the variable PYTHONPATH of another."""
    return os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)


def settle_in(parent: int) -> None:
    """Sets up such a process, as its first step: it ends with its parent, even after a SIGKILL of the parent.

    When memory runs out, the kernel kills the process before its parent. Ctrl-C in a terminal reaches both,
    and the parent decides.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent ended before the call above.
    if os.getppid() != parent:
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
