"""Starts Python processes by forking one that has imported the large libraries: each would take seconds.

`Popen` is subprocess.Popen in all but that, and `spawnv_passfds` the function of multiprocessing. The
process is a real one: a child of this process with memory, signals, an environment, open files and an exit
code of its own. It imports this project itself.

How: a nursery, a process that has imported LIBRARIES and has one thread, forks itself twice and lets the one
between end. The kernel gives the orphan to the nearest subreaper, which is this process. A process that was
started so has a nursery of its own, for what it starts.

What differs from an ordinary start: of the interpreter's options only -c, -m, -P and -I have an effect.
LIBRARIES have read their environment variables before. Hashes of strings are the nursery's. A process that
ends well does not take its modules apart. One that asks to be killed with the thread that started it is
killed with the main thread.
"""

import atexit
import ctypes
import gc
import importlib
import json
import multiprocessing.util
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from fcntl import F_DUPFD, fcntl
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("torch", "safetensors.torch", "tokenizers", "optuna", "sqlalchemy", "pydantic", "rich.console"),
    *("rich.table", "typer", "yaml"),
)
# The anchor is timed around each measurement, and bytes are copied once in a process: most of a quick one's
# time.
QUICK_ANCHOR = {"warmup": 1, "min_samples": 5, "min_seconds": 0.0, "max_seconds": 0.06}
QUICK_COPY_BYTES = 1 << 24
_RAY_SOCKET = "FRONTRUNNER_TESTS_WARM_RAY"  # the variable with the name of the socket of `warm_ray`
_MEASURES = "profiler.process.worker_process"
_FRONTRUNNER = str(Path(sys.executable).parent / "frontrunner")
_OPTIONS = {"-P", "-I", "-u", "-B"}
# The arguments of subprocess.Popen._execute_child behind the first two.
_GIVEN = (
    *(
        "preexec_fn",
        "close_fds",
        "pass_fds",
        "cwd",
        "env",
        "startupinfo",
        "creationflags",
        "shell",
        "p2cread",
    ),
    *("p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite", "restore_signals", "gid", "gids", "uid"),
    *("umask", "start_new_session", "process_group"),
)
_PR_SET_CHILD_SUBREAPER = 36  # from <linux/prctl.h>
LONGEST = 2**17  # a request (bytes)
_UNUSED = 200  # beyond the file numbers that any process of the tests has
_PATIENCE_S = 30.0

ColdPopen, cold_spawnv_passfds = subprocess.Popen, multiprocessing.util.spawnv_passfds
_lock = threading.Lock()
_nursery: socket.socket | None = None
_ray_server: subprocess.Popen[str] | None = None


class Popen(ColdPopen):
    def _execute_child(self, args: Any, executable: Any, *given: Any) -> None:
        options = dict(zip(_GIVEN, given, strict=True))
        words = [] if isinstance(args, str) else [os.fspath(word) for word in args]
        if not _understood(words) or options["shell"] or options["preexec_fn"]:
            super()._execute_child(args, executable, *given)
            return
        standard = [options[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        files = {own: own if number == -1 else number for own, number in enumerate(standard)}
        self.pid = child(
            words,
            files | {number: number for number in options["pass_fds"]},
            environment=os.environ if options["env"] is None else options["env"],
            folder=options["cwd"] or Path.cwd(),
            session=options["start_new_session"],
        )
        self._child_created = True
        self._close_pipe_fds(*(options[name] for name in _GIVEN[8:14]))


def spawnv_passfds(path: bytes, args: Sequence[str], passfds: Sequence[int]) -> int:
    """multiprocessing.util.spawnv_passfds, by which a process of the method `spawn` is started."""
    words = [os.fsdecode(word) for word in args]
    if not _understood(words):
        return cold_spawnv_passfds(path, args, passfds)
    files = {number: number for number in (0, 1, 2, *passfds)}
    return child(words, files, environment=os.environ, folder=Path.cwd())


def _understood(words: list[str]) -> bool:
    """Whether the command is `frontrunner`, or this interpreter with a text or a module."""
    if not words or words[0] != sys.executable:
        return words[:1] == [_FRONTRUNNER]
    return next((word for word in words[1:] if word not in _OPTIONS), "") in ("-c", "-m")


def child(
    words: list[str],
    files: Mapping[int, int],
    *,
    environment: Mapping[Any, Any],
    folder: str | os.PathLike[str],
    session: bool = False,
) -> int:
    """Starts a child of this process and returns its id.

    files: the number of a file here by its number there.
    session: whether it begins a session of its own.
    """
    global _nursery
    prctl = ctypes.CDLL(None).prctl
    request = {
        "words": words,
        "files": list(files),
        "environment": {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()},
        "folder": os.fspath(folder),
        "session": session,
        "parent": os.getpid(),
    }
    with _lock:
        if _nursery is None:
            _nursery = _begun()
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
        try:
            socket.send_fds(_nursery, [json.dumps(request).encode()], list(files.values()))
            return int(_nursery.recv(LONGEST))
        finally:
            prctl(_PR_SET_CHILD_SUBREAPER, 0)


def use_warm_workers() -> None:
    """Nodes of Ray that this process starts from now on start their workers by `warm_ray_worker`.

    Nor does a head start what no search asks: Ray's page, its scaling and the reader of its logs, each a
    second of imports.
    """
    global _ray_server
    from ray._private import ray_constants
    from ray._private.node import Node

    for name in ("start_api_server", "start_monitor", "start_log_monitor"):
        setattr(Node, name, lambda self, **_: None)
    here = Path(__file__)
    ray_constants.SETUP_WORKER_FILENAME = str(here.with_name("warm_ray_worker.py"))
    if _RAY_SOCKET in os.environ:
        return
    command = [sys.executable, "-m", "tests.helpers.warm_ray"]
    pipe = subprocess.PIPE
    _ray_server = subprocess.Popen(command, cwd=here.parents[2], stdin=pipe, stdout=pipe, text=True)
    assert _ray_server.stdout is not None
    os.environ[_RAY_SOCKET] = _ray_server.stdout.readline().strip()


def with_warm_workers(start_here: Callable[..., None]) -> Callable[..., None]:
    """`search.cluster.connect._start_here`, of a Ray whose workers are warm."""

    def start(*given: Any) -> None:
        use_warm_workers()
        start_here(*given)

    return start


def _begun() -> socket.socket:
    """Starts a nursery, which ends when what is returned is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        ColdPopen(
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": "", "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return ours


def _born(requests: socket.socket) -> dict[str, Any]:
    """Is a nursery until it ends; returns in every child, which is then as the request wants it."""
    global _nursery
    while True:
        message, files, *_ = socket.recv_fds(requests, LONGEST, 16)
        if not message:
            os._exit(0)
        if between := os.fork():
            os.waitpid(between, 0)
        elif os.fork():
            os._exit(0)
        else:
            request: dict[str, Any] = json.loads(message)
            _wait_for(request["parent"])
            _nursery, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if os.fork():
                requests.send(str(os.getpid()).encode())
                requests.close()
                theirs.close()
                _set_up(request, files)
                return request
            requests.close()
            _nursery.close()
            requests = theirs
        for file in files:
            os.close(file)


def _wait_for(parent: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while os.getppid() != parent:
        if time.monotonic() > deadline:
            os._exit(1)
        time.sleep(0.0005)


def _set_up(request: dict[str, Any], files: list[int]) -> None:
    if request["session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    aside = [fcntl(file, F_DUPFD, _UNUSED) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(aside, request["files"], strict=True):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    tempfile.tempdir = None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    subprocess.Popen, multiprocessing.util.spawnv_passfds = Popen, spawnv_passfds


def _run(words: list[str]) -> None:
    """What the interpreter does with these words."""
    options = []
    while words[1:] and words[1] in _OPTIONS:
        options.append(words.pop(1))
    if "-I" not in options:
        sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if words[0] == _FRONTRUNNER:
        from search.cluster import connect

        connect._start_here = with_warm_workers(connect._start_here)
    if words[0] == _FRONTRUNNER or not words[1].startswith("-"):
        sys.argv = words[words[0] == sys.executable :]
        runpy.run_path(sys.argv[0], run_name="__main__")
        return
    _, how, what, *arguments = words
    if not {"-I", "-P"} & set(options):
        sys.path.insert(0, str(Path.cwd()) if how == "-m" else "")
    sys.argv = [how, *arguments]
    if what == _MEASURES:
        from profiler.device import ceilings
        from profiler.measuring import anchor
        from profiler.timing import SamplingSettings

        anchor._SETTINGS = SamplingSettings.model_validate(QUICK_ANCHOR)
        ceilings.COPY_BYTES["cpu"] = QUICK_COPY_BYTES
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(what, "<string>", "exec"), module.__dict__)  # noqa: S102 - as -c does


def _run_and_end(words: list[str]) -> None:
    """Runs and ends without taking the libraries apart, which takes half a second."""
    code = 0
    try:
        _run(words)
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code or 0
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.modules["tests.helpers.warm_python"] = sys.modules["__main__"]  # with the nursery, for who imports it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the whole group
    for name in LIBRARIES:
        importlib.import_module(name)
    os.environ.pop("OPENBLAS_NUM_THREADS")
    gc.collect()
    gc.freeze()
    _run_and_end(_born(socket.socket(fileno=int(sys.argv[1])))["words"])
