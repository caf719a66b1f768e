"""What the server answers: the page of runs, its data, and the list of all runs. Nothing here knows HTTP."""

import gzip
import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from operators.base.errors import RunError
from search.runs.all_runs import Summary, run_folders, summary
from search.runs.folder import RunFolder
from search.runs.ledger import Ledger, open_ledger
from search.view.page import document
from search.view.page.shown import Source, shown

_LEAST_MS = 2000  # between two questions of a page
_SHARE = 3  # waits of a page over the time to make its data: it loads at most a quarter of a core


@dataclass(frozen=True)
class Answer:
    """Data of a page.

    tag: tells whether they are those that the asker has.
    packed: JSON, by gzip.
    next_ms: after how long to ask again.
    """

    tag: str
    packed: bytes
    next_ms: int


@dataclass
class Site:
    """The runs of a results folder, or only some of them.

    results: the folder.
    only: the runs that are shown; None for all in `results`, also those that begin later.
    """

    results: Path
    only: Sequence[RunFolder] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ledgers: dict[Path, tuple[int, Ledger]] = field(default_factory=dict)
    _summaries: dict[Path, tuple[str, Summary]] = field(default_factory=dict)
    _answers: dict[tuple[str, ...], Answer] = field(default_factory=dict)

    def folders(self) -> dict[str, RunFolder]:
        """The runs by the names that addresses have for them."""
        listed = run_folders(self.results) if self.only is None else self.only
        return {folder.name: folder for folder in listed}

    def home(self) -> bytes:
        """The page of the only run, or the list of runs."""
        if self.only is not None and len(self.only) == 1:
            return self.page([self.only[0].name])
        return document.listing()

    def page(self, names: Sequence[str]) -> bytes:
        """The page of runs. Raises RunError for an unknown one."""
        self._named(names)
        address = f"data?{urlencode([('run', name) for name in names])}"
        return document.live(address=address, title=", ".join(names))

    def data(self, names: Sequence[str], *, known: str | None = None) -> Answer:
        """What the page shows of runs, made anew only where something changed.

        known: the tag of what the asker has, for which nothing is packed.

        Raises RunError for an unknown run or a ledger that cannot be read.
        """
        folders = self._named(names)
        with self._lock:
            tag = _tag(folders)
            answer = self._answers.get(tuple(names))
            if answer is not None and answer.tag == tag:
                return answer
            if known == tag:
                return Answer(tag, b"", _LEAST_MS)
            begun = time.monotonic()
            value = shown([Source.read(folder, self._ledger(folder)) for folder in folders])
            packed = gzip.compress(json.dumps(value, allow_nan=False).encode(), 5)
            took_ms = int(1000 * (time.monotonic() - begun))
            answer = Answer(tag, packed, max(_LEAST_MS, _SHARE * took_ms))
            self._answers[tuple(names)] = answer
            return answer

    def runs(self) -> bytes:
        """The list of runs as JSON."""
        with self._lock:
            rows = [asdict(self._summary(folder)) for folder in self.folders().values()]
        return json.dumps(
            [{**row, "changed": row["changed"].isoformat(timespec="seconds")} for row in rows]
        ).encode()

    def _summary(self, folder: RunFolder) -> Summary:
        tag, before = _tag([folder]), self._summaries.get(folder.path)
        if before is None or before[0] != tag:
            self._summaries[folder.path] = before = (tag, summary(folder))
        return before[1]

    def _named(self, names: Sequence[str]) -> list[RunFolder]:
        folders = self.folders()
        if not names:
            raise RunError("expected a run, as in page?run=NAME")
        if unknown := [name for name in names if name not in folders]:
            raise RunError(f"unknown run {unknown[0]!r}")
        return [folders[name] for name in names]

    def _ledger(self, folder: RunFolder) -> Ledger:
        """The open ledger, which reads only what is new; another file of that name is opened anew."""
        inode = folder.ledger.stat().st_ino
        before = self._ledgers.get(folder.path)
        if before is not None and before[0] == inode:
            return before[1]
        self._ledgers[folder.path] = (inode, open_ledger(folder.ledger))
        return self._ledgers[folder.path][1]


def _tag(folders: Sequence[RunFolder]) -> str:
    """Tells the state of runs from every other: when their ledgers were written, and what drives them."""
    states = []
    for folder in folders:
        files = [folder.ledger.with_name(folder.ledger.name + end) for end in ("", "-wal", "-journal")]
        seen = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists()]
        states.append((folder.name, seen, folder.driver()))
    return hashlib.sha256(repr(states).encode()).hexdigest()[:20]
