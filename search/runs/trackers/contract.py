"""What a tracker is told, and what it does with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Begun:
    """A run that is going to be tracked.

    run: its name.
    folder: the tracker's own folder, inside that of the run.
    config: the run's configuration, as JSON takes it.
    """

    run: str
    folder: Path
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Tracked:
    """One evaluation that ended.

    number: of the candidate.
    order: which of all evaluations it was.
    architecture: its operators' symbols.
    status: as in docs/columns.md.
    scores: metrics by name; empty where it has none.
    curve: points (tokens, training loss).
    """

    number: int
    order: int
    architecture: str
    status: str
    scores: Mapping[str, float]
    curve: Sequence[tuple[int, float]] = ()


class Tracker(Protocol):
    """An open tracker. It may raise anything: a search goes on without it then."""

    def evaluated(self, tracked: Tracked) -> None: ...

    def close(self) -> None: ...
