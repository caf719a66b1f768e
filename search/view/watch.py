"""Shows a run in the terminal while it goes on, from its ledger."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from search.objectives import by_kind
from search.runs.entry import Entry
from search.runs.folder import RunFolder
from search.runs.frontier import hypervolume_course
from search.runs.ledger import Ledger
from search.runs.status import opened, state_of
from search.runs.worker_time import worker_seconds
from search.view.frame import sorted_by
from search.view.progress import duration
from search.view.tables import candidates_sheet, columns_for, frame
from search.view.terminal_tables import Sheet, sheet, show

EVERY_S = 2.0  # seconds between two pictures
ROWS = 12  # most rows of the frontier, as a picture must fit into a terminal
BARS = "▁▂▃▄▅▆▇█"


def watch(results: Path, run: str, console: Console, *, once: bool) -> None:
    """Shows a run until no process drives it any more. Raises RunError.

    results: folder of runs.
    run: name or folder of the run.
    once: show the run a single time. Without a terminal it is always a single time.
    """
    folder, ledger = opened(results, run)
    if once or not console.is_terminal:
        show(console, picture(folder, ledger))
        return
    with Live(picture(folder, ledger), console=console, auto_refresh=False) as live:
        while folder.driver() is not None:
            time.sleep(EVERY_S)
            live.update(picture(folder, ledger), refresh=True)


def picture(folder: RunFolder, ledger: Ledger) -> Group:
    """The state of the run at this moment: counts, use of time, hypervolume, workers and frontier."""
    entries, config, driven = ledger.entries(), ledger.config, folder.driver() is not None
    objectives, now = config.parsed_objectives(), datetime.now(UTC)
    ended = Counter(entry.evaluation.status for entry in entries if entry.evaluation)
    lines = [
        f"{folder.name}: {sum(ended.values())} of {config.candidates} candidates evaluated, "
        f"{state_of(folder, ledger, entries)}",
        _listed("ended", {name: str(count) for name, count in ended.most_common()}),
        _listed(
            "worker time",
            _shares(worker_seconds(entries, workers=config.at_once, now=now if driven else None)),
        ),
    ]
    if course := hypervolume_course(entries, objectives, steps=60):
        lines.append(f"hypervolume {course[-1]:.4f}  {sparkline(course)}")
    parts: list[RenderableType] = [Text(line) for line in lines if line]
    if driven and (under_way := [entry for entry in entries if entry.under_way]):
        parts.append(_workers(under_way, now, in_parts=bool(config.device_kind)))
    for kind, wanted in by_kind(objectives, config.device_kind).items():
        metrics = config.metrics.names()
        table = sorted_by(frame(entries, wanted, metrics, frontier=True), wanted[0].metric)
        title = f"frontier{kind and f' on {kind}'}: {len(table)} candidates"
        title += f", the first {ROWS}" if len(table) > ROWS else ""
        if len(table):
            parts.append(candidates_sheet(table.head(ROWS), columns_for(table, wanted), entries, title=title))
    return Group(*parts)


def sparkline(values: Sequence[float]) -> str:
    """One bar for each value, scaled between the lowest and the highest value."""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def _workers(under_way: Sequence[Entry], now: datetime, *, in_parts: bool) -> Sheet:
    """A row for each candidate under way.

    in_parts: whether a candidate goes from worker to worker; the ledger knows only the first one then.
    """
    worker = "first worker" if in_parts else "worker"
    rows = []
    for entry in under_way:
        last = entry.under_way[-1]
        since = duration(max(0.0, (now - last.at).total_seconds()))
        place = last.place or ("the next free one" if in_parts else "a new one")
        rows.append((place, str(entry.number), since, str(len(entry.under_way)), entry.shorthand))
    names = (worker, "candidate", "for [h:mm:ss]", "attempt", "architecture")
    return sheet(names, rows, words=(worker, "architecture"), optional=("attempt",))


def _shares(seconds: dict[str, float]) -> dict[str, str]:
    """Purpose -> its duration and share of all seconds, as text."""
    whole = sum(seconds.values())
    return (
        {name: f"{duration(value)} ({value / whole:.0%})" for name, value in seconds.items() if value}
        if whole
        else {}
    )


def _listed(title: str, values: dict[str, str]) -> str:
    return f"{title}: {', '.join(f'{name} {value}' for name, value in values.items())}" if values else ""
