"""What a search that ended has found."""

from dataclasses import dataclass

from operators import Architecture
from operators.base.errors import RunError
from search.config.run import RunConfig
from search.runs.entry import Entry
from search.runs.export import why_without_weights
from search.runs.folder import RunFolder
from search.runs.frontier import Gain, hypervolume_gain, scored
from search.runs.gate_counts import Gate, counted, gate_names
from search.runs.ledger import Ledger
from search.spaces.edges import at_edges

MOST_REASONS = 300  # characters of a message that lists why candidates have no scores


@dataclass(frozen=True)
class Ended:
    """A run that has nothing left to do.

    folder: where it lies.
    config: what it was asked to do.
    entries: all candidates, by number.
    frontier: the candidates that no other dominates, sorted by the first objective; at least one.
    gain: hypervolumes of the frontier and of the first proposals; None where every figure is tainted.
    edges: a line for each edge of the space at which the frontier lies.
    gates: what each gate rejected.
    exhausted: whether the space had no more candidates.
    time_up: whether the run's time ended before its candidates did.
    best_has_weights: whether the first candidate of the frontier can be exported with its weights.
    """

    folder: RunFolder
    config: RunConfig
    entries: tuple[Entry, ...]
    frontier: tuple[Entry, ...]
    gain: Gain | None
    edges: tuple[str, ...]
    gates: tuple[Gate, ...]
    exhausted: bool
    time_up: bool
    best_has_weights: bool


def conclude(folder: RunFolder, ledger: Ledger) -> Ended:
    """What the ledger of a run that ended holds. Raises RunError where no candidate has scores."""
    config, entries = ledger.config, ledger.entries()
    objectives = config.parsed_objectives()
    frontier = scored(entries, objectives).frontier()
    if not frontier:
        reasons = sorted({entry.evaluation.reason for entry in entries if entry.evaluation})
        raise RunError(
            f"run {folder.name}: none of {len(entries)} candidates has scores: "
            f"{'; '.join(reasons)[:MOST_REASONS]}"
        )
    models = [entry.architecture for entry in frontier]
    language_models = [model for model in models if isinstance(model, Architecture)]
    return Ended(
        folder=folder,
        config=config,
        entries=entries,
        frontier=tuple(frontier),
        gain=hypervolume_gain(entries, objectives, first=config.evolution.population),
        edges=tuple(at_edges(language_models, config.space)),
        gates=counted(entries, objectives, gate_names(config)),
        exhausted=ledger.exhausted,
        time_up=ledger.time_up and len(entries) < config.candidates,
        best_has_weights=not why_without_weights(folder, ledger, frontier[0]),
    )
