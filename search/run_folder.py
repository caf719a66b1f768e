"""A run's folder: where things lie, which names are allowed, and who drives it."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from operators.errors import RunError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class RunFolder:
    """The paths inside one run's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.db"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def plot(self) -> Path:
        return self.path / "frontier.png"

    def weights(self, number: int) -> Path:
        return self.path / "weights" / f"{number:05d}.safetensors"

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Holds the right to drive the run; the kernel releases it with the process. Raises RunError if another has it."""
        with (self.path / "driver.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise RunError(f"run {self.name} is being driven by process {lock.read().strip() or '?'}") from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def driver(self) -> int | None:
        """The process that drives the run right now, if any."""
        try:
            with self.driving():
                return None
        except RunError:
            text = (self.path / "driver.lock").read_text().strip()
            return int(text) if text.isdigit() else None


def check_name(name: str) -> str:
    """The name, if it may be a run's. Raises RunError."""
    if not NAME.fullmatch(name):
        raise RunError(f"run name {name!r}: expected 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit")
    return name


def new_folder(results: Path, name: str) -> RunFolder:
    """The folder for a new run, not made yet. Raises RunError if it exists."""
    path = results / check_name(name)
    if path.exists():
        raise RunError(f"run {name} exists already in {results}: choose another --name, or go on with `frontrunner resume {name}`")
    return RunFolder(path)


def find_folder(results: Path, run: str) -> RunFolder:
    """The folder of an existing run, by its name in `results`. Raises RunError naming the runs that exist."""
    path = results / check_name(run)
    if not (path / "ledger.db").is_file():
        known = sorted(ledger.parent.name for ledger in results.glob("*/ledger.db"))
        shown = ", ".join(known[-8:]) or "none"
        raise RunError(f"unknown run {run!r}: expected one of those in {results}: {shown}")
    return RunFolder(path)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is either the old one or the whole new one, also after a crash. Raises RunError."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None
