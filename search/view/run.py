"""How a run stands and how it ended, in the terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from search.objectives import by_kind
from search.runs.folder import RunFolder
from search.runs.gate_counts import Gate
from search.runs.ledger import Ledger
from search.runs.status import standing
from search.view.frame import records, sorted_by
from search.view.gates import gates_table
from search.view.tables import candidates_sheet, columns_for, frame, run_frame
from search.view.terminal_tables import show

if TYPE_CHECKING:
    from search.runs.ended import Ended


def write_plots(ended: "Ended") -> None:
    """Draws the frontier into the run's folder, one plot for each kind of device."""
    from search.view.frontier_plot import plot_frontier  # matplotlib takes a second to import

    config, folder = ended.config, ended.folder
    for kind, wanted in by_kind(config.parsed_objectives(), config.device_kind).items():
        title, first = _titled(folder.name, kind), config.evolution.population
        plot_frontier(ended.entries, wanted, folder.plot(kind), title=title, first=first)


def print_ended(console: Console, ended: "Ended") -> None:
    """Prints the frontier, what it gained, what the gates rejected, and the commands that look further."""
    _print_frontiers(console, ended)
    first = min(ended.config.evolution.population, len(ended.entries))
    if ended.gain is not None:
        console.print(
            f"hypervolume {ended.gain.final:.4f}, of the first {first} proposals alone "
            f"{ended.gain.initial:.4f}",
            soft_wrap=True,
        )
    for line in ended.edges:
        console.print(line, soft_wrap=True, markup=False)
    if any(gate.turned_away for gate in ended.gates):
        show(console, gates_table(ended.gates))
    if reason := _why_fewer(ended):
        console.print(reason, soft_wrap=True)
    _print_commands(console, ended)


def _print_frontiers(console: Console, ended: "Ended") -> None:
    """A table for each kind of device."""
    config, entries = ended.config, ended.entries
    metrics = config.metrics.names()
    for kind, wanted in by_kind(config.parsed_objectives(), config.device_kind).items():
        table = sorted_by(frame(entries, wanted, metrics, frontier=True), wanted[0].metric)
        of_run = _titled(ended.folder.name, kind)
        title = f"frontier of {of_run}: {len(table)} of {len(entries)} candidates"
        show(console, candidates_sheet(table, columns_for(table, wanted), entries, title=title))


def _why_fewer(ended: "Ended") -> str:
    """Why the run has fewer candidates than it was asked for; empty where it has not."""
    count, asked = len(ended.entries), ended.config.candidates
    if ended.exhausted:
        return f"the space has no more than {count} candidates, fewer than the {asked} asked for"
    if ended.time_up:
        return f"the time of {ended.config.time_s:g} s was up after {count} candidates"
    return ""


def _print_commands(console: Console, ended: "Ended") -> None:
    folder, best = ended.folder, ended.frontier[0].number
    without = [] if ended.best_has_weights else ["--without-weights"]
    kinds = by_kind(ended.config.parsed_objectives(), ended.config.device_kind)
    for label, value in (
        *(("plot", str(folder.plot(kind))) for kind in kinds),
        ("look further", folder.command("frontier", "--all")),
        ("", folder.command("show", best)),
        ("export", folder.command("export", best, *without, "--to", "winner")),
    ):
        console.print(f"{label:<14}{value}", soft_wrap=True, markup=False)


def _titled(name: str, kind: str) -> str:
    return f"{name} on {kind}" if kind else name


def run_json(folder: RunFolder, ledger: Ledger) -> dict[str, Any]:
    """How a run stands, with its frontier as `frontier --json` prints it."""
    table = run_frame(ledger.config, ledger.entries(), None, (), frontier=True)
    members = sorted_by(table, ledger.config.objectives[0])
    return {**standing(folder, ledger), "frontier": records(members)}


def print_standing(console: Console, figures: Mapping[str, Any]) -> None:
    """Prints what `search.runs.status.standing` returns."""
    for key, value in figures.items():
        if key != "gates":
            text = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else value
            unit = " nats/token" if key == "best_loss" and value is not None else ""
            console.print(f"{key:<24}{text}{unit}", soft_wrap=True, markup=False)
    if figures["gates"]:
        show(console, gates_table([Gate(name, **counts) for name, counts in figures["gates"].items()]))
