"""How far a run is, and its candidates, for reading."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from operators.base.errors import RunError
from search.runs import ledger as ledger_module
from search.runs.entry import Entry
from search.runs.folder import RunFolder, find_folder
from search.runs.frontier import hypervolume_gain, scored
from search.runs.gate_counts import counted, gate_names
from search.runs.ledger import Ledger
from search.runs.repeats import next_repeat


def opened(results: Path, run: str) -> tuple[RunFolder, Ledger]:
    """An existing run, for reading. Raises RunError."""
    folder = find_folder(results, run)
    return folder, ledger_module.open_ledger(folder.ledger)


def candidate_of(results: Path, run: str, number: int) -> tuple[RunFolder, Ledger, Entry]:
    """One candidate of a run. Raises RunError."""
    folder, ledger = opened(results, run)
    if (entry := ledger.entry(number)) is not None:
        return folder, ledger, entry
    count = len(ledger.entries())
    known = f"expected 0 to {count - 1}" if count else "it has none yet"
    raise RunError(f"run {run} has no candidate {number}: {known}")


def complete(ledger: Ledger, entries: Sequence[Entry]) -> bool:
    """Whether nothing is left to do, second evaluations included.

    entries: what the ledger's `entries` returned.
    """
    if ledger.time_up and ledger.ended(entries):
        return True
    objectives, share = ledger.config.parsed_objectives(), ledger.config.repeats
    return ledger.complete(entries) and next_repeat(entries, objectives, share=share) is None


def state_of(folder: RunFolder, ledger: Ledger, entries: Sequence[Entry]) -> str:
    """Whether a run is driven, complete or stopped, for people."""
    if driver := folder.driver():
        return f"driven by process {driver}"
    return "complete" if complete(ledger, entries) else f"stopped, `{folder.command('resume')}` goes on"


def standing(folder: RunFolder, ledger: Ledger) -> dict[str, Any]:
    """The figures of a run's progress, for people and scripts."""
    entries, objectives = ledger.entries(), ledger.config.parsed_objectives()
    ended = [entry.evaluation for entry in entries if entry.evaluation]
    gain = hypervolume_gain(entries, objectives, first=ledger.config.evolution.population)
    return {
        "run": folder.name,
        "state": state_of(folder, ledger, entries),
        "started": ledger.started,
        "candidates": ledger.config.candidates,
        "evaluated": len(ended),
        "evaluated_twice": sum(bool(evaluation.standard_errors) for evaluation in ended),
        "unfinished": len(entries) - len(ended),
        **{
            status: sum(evaluation.status == status for evaluation in ended)
            for status in sorted({evaluation.status for evaluation in ended})
        },
        "tainted": sum(bool(entry.tainted()) for entry in entries),
        "best_loss": min((each.metrics["loss"] for each in ended if "loss" in each.metrics), default=None),
        "frontier": len(scored(entries, objectives).frontier()),
        "hypervolume": gain and gain.final,
        "hypervolume_initial": gain and gain.initial,
        "folder": str(folder.path),
        "gates": {
            gate.name: {key: value for key, value in asdict(gate).items() if key != "name"}
            for gate in counted(entries, objectives, gate_names(ledger.config))
        },
    }
