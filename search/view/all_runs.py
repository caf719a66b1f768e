"""The runs of a results folder as a table."""

from collections.abc import Sequence
from datetime import UTC, datetime

from search.evaluation.figures import formatted, scaled
from search.runs.all_runs import Summary
from search.view.terminal_tables import Sheet, sheet

_UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"))  # seconds of each


def runs_table(runs: Sequence[Summary], *, now: datetime | None = None) -> Sheet:
    """A row for each run. now: the moment that ages are told for."""
    moment = now or datetime.now(UTC)
    rows = [
        (
            run.name,
            _state(run),
            f"{run.evaluated} of {run.candidates}" if run.readable else "",
            str(run.frontier) if run.readable else "",
            ", ".join(f"{name} {formatted(name, value)}" for name, value in run.best.items()),
            age((moment - run.changed).total_seconds()),
            sized(run),
        )
        for run in runs
    ]
    names = ("run", "state", "evaluated", "frontier", "best", "changed", "size")
    return sheet(names, rows, words=("run", "state", "best", "changed"), optional=("frontier", "size"))


def _state(run: Summary) -> str:
    """The state without the command that `status` gives."""
    return run.state if not run.readable else run.state.partition(",")[0]


def sized(run: Summary) -> str:
    """The size of a run's files with its unit."""
    number, prefix = scaled(run.size)
    return f"{number} {prefix}B"


def age(seconds: float) -> str:
    """How long ago, in the largest unit that it fills."""
    for size, unit in _UNITS:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
