"""A run's folder: where things lie, which names are allowed, and which process drives it."""

import fcntl
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from operators.base.errors import RunError
from search.config.name import NAME, check_name, listed


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
        """The plot of the frontier; of one kind of device where the run has several."""
        return self.path / (f"frontier-{kind}.png" if kind else "frontier.png")

    def weights(self, number: int) -> Path:
        return self.path / "weights" / f"{number:05d}.safetensors"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    def command(self, verb: str, *arguments: object) -> str:
        """What to type for this run: `frontrunner show RUN 3`, with --results where it is not the default."""
        where = [] if self.path.parent == Path("results") else ["--results", self.path.parent]
        named = [self.name, *arguments, *where] if NAME.fullmatch(self.name) else [self.path, *arguments]
        return shlex.join(map(str, ["frontrunner", *verb.split(), *named]))

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Holds the right to drive the run, which the kernel releases with the process.

        Raises RunError if another process has it.
        """
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


def new_folder(results: Path, name: str) -> RunFolder:
    """The folder for a new run, not made yet. Raises RunError if it exists."""
    folder = RunFolder(results / check_name(name))
    if folder.path.exists():
        raise RunError(
            f"run {name} exists already in {results}: choose another --name, "
            f"or go on with `{folder.command('resume')}`"
        )
    for place in (results, *results.absolute().parents):
        if os.path.lexists(place):
            if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
                raise RunError(f"results folder {results}: {place} is not a folder that can be written")
            break
    return folder


def find_folder(results: Path, run: str, *, holds: str = "ledger.db", what: str = "run") -> RunFolder:
    """The folder of an existing run.

    results: folder that holds the runs.
    run: its name in `results` or, where there is none of that name, a path to its folder.
    holds: the file that tells such a folder from others.
    what: what such a folder is called in an error.

    Raises RunError, which names those that exist.
    """
    is_path = os.sep in run or run in (".", "..")
    if not is_path and (results / check_name(run) / holds).is_file():
        return RunFolder(results / run)
    here = Path(os.path.normpath(run))
    if "\0" not in run and (here / holds).is_file():
        return RunFolder(here if here.name not in ("", "..") else here.resolve())
    known = sorted(results.glob(f"*/{holds}"), key=lambda file: (file.stat().st_mtime, file))
    shown = listed([file.parent.name for file in known])
    at = f"{run} has no {holds}, " if is_path else ""
    raise RunError(f"unknown {what} {run!r}: {at}expected one of those in {results}: {shown}")
