"""How a run stands and how it ended, in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from operators.base.errors import RunError
from search.objectives import by_kind, names
from search.runs.export import why_without_weights
from search.runs.folder import RunFolder
from search.runs.frontier import frontier_of, hypervolume_gain
from search.runs.gate_counts import Gate, counted
from search.runs.ledger import Ledger
from search.runs.run import drive_to_end
from search.spaces.edges import at_edges
from search.view.frontier_plot import plot_frontier
from search.view.gates import gates_table
from search.view.progress import display
from search.view.tables import candidates_sheet, columns_for, frame, sorted_by
from search.view.terminal_tables import show


def _conclude(folder: RunFolder, ledger: Ledger, console: Console) -> None:
    entries, objectives = ledger.entries(), ledger.config.parsed_objectives()
    best = frontier_of(entries, objectives)
    if not best:
        reasons = {entry.evaluation.reason for entry in entries if entry.evaluation}
        raise RunError(
            f"run {folder.name}: none of {len(entries)} candidates has scores: {'; '.join(sorted(reasons))[:300]}"
        )
    kinds, first = by_kind(objectives, ledger.config.device_kind), ledger.config.evolution.population
    for kind, wanted in kinds.items():
        table = frame(
            entries, wanted, names(ledger.config.profile, ledger.config.tasks, ledger.config.device_kind)
        )
        table = sorted_by(table[table["frontier"]], wanted[0].metric)
        title = (
            f"frontier of {folder.name}{kind and f' on {kind}'}: {len(table)} of {len(entries)} candidates"
        )
        show(console, candidates_sheet(table, columns_for(table, wanted), entries, title=title))
        plot_frontier(
            entries, wanted, folder.plot(kind), title=f"{folder.name}{kind and f' on {kind}'}", first=first
        )
    gain = hypervolume_gain(entries, objectives, first=first)
    if gain is not None:
        began = f"of the first {min(first, len(entries))} proposals alone {gain.initial:.4f}"
        console.print(f"hypervolume {gain.final:.4f}, {began}", soft_wrap=True)
    for line in at_edges([entry.architecture for entry in best], ledger.config.space):
        console.print(line, soft_wrap=True, markup=False)
    gates = counted(entries, ledger.config)
    if any(gate.turned_away for gate in gates):
        show(console, gates_table(gates))
    if ledger.exhausted:
        asked = ledger.config.candidates
        console.print(
            f"the space has no more than {len(entries)} candidates, fewer than the {asked} asked for",
            soft_wrap=True,
        )
    elif ledger.time_up and len(entries) < ledger.config.candidates:
        console.print(
            f"the time of {ledger.config.time_s:g} s was up after {len(entries)} candidates", soft_wrap=True
        )
    without = ["--without-weights"] if why_without_weights(folder, ledger, best[0]) else []
    for label, value in (
        *(("plot", str(folder.plot(kind))) for kind in kinds),
        ("look further", folder.command("frontier", "--all")),
        ("", folder.command("show", best[0].number)),
        ("export", folder.command("export", best[0].number, *without, "--to", "winner")),
    ):
        console.print(f"{label:<14}{value}", soft_wrap=True, markup=False)


def print_standing(console: Console, found: Mapping[str, Any]) -> None:
    """What `standing` returns, for people."""
    for key, value in found.items():
        if key != "gates":
            shown = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else value
            unit = " nats/token" if key == "best_loss" and value is not None else ""
            console.print(f"{key:<24}{shown}{unit}", soft_wrap=True, markup=False)
    if found["gates"]:
        show(console, gates_table([Gate(name, **counts) for name, counts in found["gates"].items()]))


def go_on(folder: RunFolder, *, executor: str, address: str | None, console: Console) -> None:
    """Drives a run to its end and prints its frontier.

    An interrupted run says how to go on and raises KeyboardInterrupt.
    """
    ledger = drive_to_end(folder, executor=executor, address=address, console=console, display=display)
    _conclude(folder, ledger, console)
