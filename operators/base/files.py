"""Files and folders that are written whole or not at all, and locks on files."""

import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from operators.base.errors import RunError

# Between two attempts to take a lock that another process holds (s).
_LOOK_S = 0.05


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is either the old one or the whole new one, also after a crash.

    Raises RunError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_bytes(content)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None


@contextmanager
def whole_file(path: Path, *, apart: bool = False) -> Iterator[Path]:
    """A name to write a file under, which becomes `path` at the end; after any error `path` is as before.

    apart: whether other processes or threads may write the same file at the same time, so that each needs a
        name of its own. Otherwise the name is always the same, so that the next write replaces what a kill
        leaves there.

    Raises OSError where it cannot be written.
    """
    own = f".{os.getpid()}-{threading.get_ident()}" if apart else ""
    partial = path.parent / f".{path.name}{own}.partial"
    try:
        yield partial
        with partial.open("rb") as file:
            # Without this, a crash of the machine may keep the new name and lose the content.
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError, ValueError):
            partial.unlink()
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` at the end; after any error it is removed and `path` as before.

    path: new, or an empty folder

    Raises OSError where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        partial.chmod(0o755)
        yield partial
        if path.exists():
            path.rmdir()
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def locked(path: Path, *, shared: bool = False, wait_s: float | None = None) -> Iterator[IO[str]]:
    """Holds the lock on a file and gives the open file; the kernel releases the lock with the process.

    The file stays there afterwards.

    path: the file
    shared: whether to hold it together with others that do so. The file must then exist, and is only read.
        Otherwise it is created where it is missing.
    wait_s: how long to wait for others to release it (s); None waits as long as it takes

    Raises BlockingIOError where others still hold it then.
    Raises OSError where the file cannot be opened.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("r" if shared else "a+", encoding="utf-8") as file:
        if wait_s is None:
            fcntl.flock(file, kind)
        else:
            _take(file, kind, until=time.monotonic() + wait_s)
        yield file


def _take(file: IO[str], kind: int, *, until: float) -> None:
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(_LOOK_S)
        else:
            return
