"""The runs of a results folder: how each stands, and how one is removed."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

from operators.base.errors import FrontrunnerError, RunError, flat
from search.objectives import Objective
from search.runs.entry import Entry
from search.runs.folder import RunFolder
from search.runs.frontier import scored
from search.runs.ledger import open_ledger
from search.runs.status import state_of


@dataclass(frozen=True)
class Summary:
    """A run in a list.

    name: of its folder.
    state: whether it is driven, complete or stopped; or why its ledger cannot be read.
    readable: whether its ledger can be read; the counts are 0 where not.
    driven: whether a process drives it now.
    started: when it began, as its ledger has it.
    changed: when its ledger was written last.
    candidates, evaluated, frontier: how many were asked for, have ended, and are on the frontier.
    best: of each objective, its name and the best value on the frontier.
    size: of all its files (bytes).
    """

    name: str
    state: str
    readable: bool
    driven: bool
    changed: datetime
    size: int
    started: str = ""
    candidates: int = 0
    evaluated: int = 0
    frontier: int = 0
    best: Mapping[str, float] = field(default_factory=dict)


def run_folders(results: Path) -> list[RunFolder]:
    """The runs in a results folder, those whose ledger changed last first. Raises RunError for no folder."""
    if not results.is_dir():
        what = "is not a folder" if results.exists() else "does not exist"
        raise RunError(f"results folder {results} {what}")
    folders = [RunFolder(path.parent) for path in results.glob("*/ledger.db") if _visible(path.parent)]
    return sorted(folders, key=lambda folder: (-_changed(folder), folder.name))


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")  # such folders are being written or removed


def _changed(folder: RunFolder) -> float:
    try:
        return folder.ledger.stat().st_mtime
    except OSError:  # it was removed meanwhile
        return 0.0


def summary(folder: RunFolder) -> Summary:
    """How a run stands; one whose ledger cannot be read says why."""
    about = partial(
        Summary,
        name=folder.name,
        driven=folder.driver() is not None,
        changed=datetime.fromtimestamp(_changed(folder), UTC),
        size=_size(folder.path),
    )
    try:
        with closing(open_ledger(folder.ledger)) as ledger:
            entries, config = ledger.entries(), ledger.config
            objectives = config.parsed_objectives()
            members = scored(entries, objectives).frontier()
            return about(
                state=state_of(folder, ledger, entries),
                readable=True,
                started=ledger.started,
                candidates=config.candidates,
                evaluated=sum(entry.evaluation is not None for entry in entries),
                frontier=len(members),
                best={each.metric: _best(members, each) for each in objectives} if members else {},
            )
    except FrontrunnerError as error:
        return about(state=f"cannot be read: {flat(error)}", readable=False)


def _best(members: Sequence[Entry], objective: Objective) -> float:
    values = [each.evaluation.metrics[objective.metric] for each in members if each.evaluation]
    return float(max(values) if objective.maximize else min(values))


def _size(path: Path) -> int:
    """The bytes of all files in a folder; what goes away meanwhile counts as nothing."""
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.lstat().st_size
        except OSError:
            continue
    return total


def check_removable(folder: RunFolder) -> None:
    """Raises RunError for a run that is being driven, and for a link to a folder."""
    if folder.path.is_symlink():
        raise RunError(f"{folder.path}: a link, expected the run's own folder {folder.path.resolve()}")
    if driver := folder.driver():
        raise RunError(
            f"run {folder.name} is driven by process {driver}: stop that process before you remove the run"
        )


def remove(folder: RunFolder) -> None:
    """Removes a run with all its files.

    Raises RunError for one that is being driven, for a link to a folder, and where it cannot be removed.
    """
    check_removable(folder)
    hidden = folder.path.with_name(f".{folder.name}.removed-{uuid4().hex[:8]}")
    try:
        with folder.driving():  # nothing begins to drive it while it is removed
            folder.path.rename(hidden)  # no half of a run is left under its name
        shutil.rmtree(hidden)
    except OSError as error:
        raise RunError(f"{error.filename or folder.path}: cannot be removed: {error.strerror}") from None
