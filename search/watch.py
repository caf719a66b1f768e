"""A run in the terminal while it goes on, from its ledger alone."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.frontier import frontier_of, hypervolume_course
from search.ledger import Entry, Ledger
from search.objectives import names
from search.progress import duration
from search.run import opened, state_of
from search.run_folder import RunFolder
from search.spent import worker_seconds
from search.tables import columns_for, frame, rich_table

EVERY_S = 2.0
ROWS = 12  # of the frontier: a picture must fit into a terminal
BARS = "▁▂▃▄▅▆▇█"


def watch(results: Path, run: str, console: Console, *, once: bool) -> None:
    """Shows the run until nobody drives it any more; a single time where asked or where `console` is no terminal. Raises RunError."""
    folder, ledger = opened(results, run)
    if once or not console.is_terminal:
        console.print(picture(folder, ledger))
        return
    with Live(picture(folder, ledger), console=console, auto_refresh=False) as live:
        while folder.driver() is not None:
            time.sleep(EVERY_S)
            live.update(picture(folder, ledger), refresh=True)


def picture(folder: RunFolder, ledger: Ledger) -> Group:
    """Everything at this moment."""
    entries, config, driven = ledger.entries(), ledger.config, folder.driver() is not None
    objectives, now = config.parsed_objectives(), datetime.now(UTC)
    ended = Counter(entry.evaluation.status for entry in entries if entry.evaluation)
    lines = [
        f"{folder.name}: {sum(ended.values())} of {config.candidates} candidates evaluated, {state_of(folder, ledger, entries)}",
        _listed("ended", {name: str(count) for name, count in ended.most_common()}),
        _listed("worker time", _shares(worker_seconds(entries, workers=config.workers, now=now if driven else None))),
    ]
    if course := hypervolume_course(entries, objectives, steps=60):
        lines.append(f"hypervolume {course[-1]:.4f}  {sparkline(course)}")
    parts: list[RenderableType] = [Text(line, overflow="fold") for line in lines if line]
    if driven and (under_way := [entry for entry in entries if entry.under_way]):
        parts.append(_workers(under_way, now))
    best = {entry.number for entry in frontier_of(entries, objectives)}
    if best:
        table = frame(entries, objectives, names(config.profile, config.tasks))
        table = table[table["frontier"]].sort_values(objectives[0].metric)
        shown = f", the first {ROWS}" if len(best) > ROWS else ""
        parts.append(rich_table(table.head(ROWS), columns_for(table, objectives), title=f"frontier: {len(best)} candidates{shown}"))
    return Group(*parts)


def sparkline(values: Sequence[float]) -> str:
    """One bar for each value, between the lowest and the highest of them."""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def _workers(under_way: Sequence[Entry], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("worker", "candidate", "for", "attempt", "architecture"):
        table.add_column(name, overflow="fold")
    for entry in under_way:
        last = entry.under_way[-1]
        since = duration(max(0.0, (now - last.at).total_seconds()))
        table.add_row(last.place or "a new one", str(entry.number), since, str(len(entry.under_way)), entry.architecture.shorthand)
    return table


def _shares(seconds: dict[str, float]) -> dict[str, str]:
    whole = sum(seconds.values())
    return {name: f"{duration(value)} ({value / whole:.0%})" for name, value in seconds.items() if value} if whole else {}


def _listed(title: str, values: dict[str, str]) -> str:
    return f"{title}: {', '.join(f'{name} {value}' for name, value in values.items())}" if values else ""
