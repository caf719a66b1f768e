"""A run's folder: where things lie, which names are allowed, and who drives it."""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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

    def plot(self, kind: str = "") -> Path:
        """Of the frontier; of one kind of device where the run has several."""
        return self.path / (f"frontier-{kind}.png" if kind else "frontier.png")

    def weights(self, number: int) -> Path:
        return self.path / "weights" / f"{number:05d}.safetensors"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    def command(self, verb: str, *arguments: object) -> str:
        """What to type for this run: `frontrunner show RUN 3`, with --results where it is not the default."""
        where = [] if self.path.parent == Path("results") else ["--results", self.path.parent]
        return " ".join(map(str, ["frontrunner", verb, self.name, *arguments, *where]))

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Holds the right to drive the run; the kernel releases it with the process. Raises RunError if another has it."""
        with ExitStack() as held:
            try:
                lock = held.enter_context((self.path / "driver.lock").open("a+"))
                if not _locked(
                    lock, fcntl.LOCK_EX, tries=20
                ):  # a look at the lock by `driver` lasts a moment
                    lock.seek(0)
                    raise RunError(f"run {self.name} is being driven by process {lock.read().strip() or '?'}")
                lock.truncate(0)
                lock.write(str(os.getpid()))
                lock.flush()
            except OSError as error:
                raise RunError(
                    f"{self.path / 'driver.lock'}: cannot be written: {error.strerror or error}"
                ) from None
            yield

    def driver(self) -> int | None:
        """The process that drives the run right now, if any."""
        try:
            with (self.path / "driver.lock").open() as lock:
                text = lock.read().strip()
                return None if _locked(lock, fcntl.LOCK_SH, tries=1) or not text.isdigit() else int(text)
        except FileNotFoundError:
            return None


def _locked(file: IO[str], kind: int, *, tries: int) -> bool:
    for _ in range(tries):
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def check_name(name: str) -> str:
    """The name, if it may be a run's. Raises RunError."""
    if not NAME.fullmatch(name):
        raise RunError(
            f"run name {name!r}: expected 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit"
        )
    return name


def new_folder(results: Path, name: str) -> RunFolder:
    """The folder for a new run, not made yet. Raises RunError if it exists."""
    folder = RunFolder(results / check_name(name))
    if folder.path.exists():
        raise RunError(
            f"run {name} exists already in {results}: choose another --name, or go on with `{folder.command('resume')}`"
        )
    for place in (results, *results.absolute().parents):
        if place.exists():
            if not place.is_dir() or not os.access(place, os.W_OK):
                raise RunError(f"results folder {results}: {place} is not a folder that can be written")
            break
    return folder


def find_folder(results: Path, run: str) -> RunFolder:
    """The folder of an existing run, by its name in `results`. Raises RunError naming the runs that exist."""
    path = results / check_name(run)
    if not (path / "ledger.db").is_file():
        known = sorted(ledger.parent.name for ledger in results.glob("*/ledger.db"))
        shown = ", ".join(known[-8:]) or "none"
        raise RunError(f"unknown run {run!r}: expected one of those in {results}: {shown}")
    return RunFolder(path)
