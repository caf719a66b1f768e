"""What each gate of a run rejected, and how often it was wrong, from the ledger alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from search.config.run import RunConfig
from search.evaluation.audits import ARITHMETIC, LATENCY, TABLE
from search.evaluation.fidelity import rung_loss, rung_metric
from search.evaluation.outcome import Evaluation
from search.objectives import Objective
from search.runs.entry import Entry
from search.runs.frontier import scored


@dataclass(frozen=True)
class Gate:
    """What a gate did.

    Before anything is measured an architecture counts each time that the proposer tries it; later each
    candidate counts once.

    name: of the gate.
    seen: how many came to it.
    turned_away: how many of these it rejected.
    audited: how many of those were let through and have shown what they are (see `search.gates.screen`).
    wrong: how many of these should not have been rejected.
    """

    name: str
    seen: int
    turned_away: int
    audited: int
    wrong: int


def gate_names(config: RunConfig) -> tuple[str, ...]:
    """The gates that a run has, from cheap to dear."""
    table = (TABLE,) if config.gates.table else ()
    before_training = (ARITHMETIC, *table, LATENCY) if config.constraints else ()
    loss = rung_loss(config.parsed_objectives())
    return (*before_training, *(rung_metric(tokens, loss) for tokens in config.fidelity.rungs))


def counted(
    entries: Sequence[Entry], objectives: Sequence[Objective], names: Sequence[str]
) -> tuple[Gate, ...]:
    """What the gates of these names did."""
    frontier = {entry.number for entry in scored(entries, objectives).frontier()}
    ended = [(entry.evaluation, entry.number in frontier) for entry in entries if entry.evaluation]
    gates = []
    for name in names:
        if name in (ARITHMETIC, TABLE):
            counts = [entry.screened.get(name, (0, 0)) for entry in entries]
            seen, rejected = sum(came for came, _ in counts), sum(away for _, away in counts)
        else:
            seen = sum(_came_to(name, evaluation) for evaluation, _ in ended)
            rejected = sum(_rejected_at(name, evaluation) for evaluation, _ in ended)
        verdicts = _verdicts(name, ended)
        gates.append(Gate(name, seen, rejected, len(verdicts), sum(verdicts)))
    return tuple(gates)


def _came_to(name: str, evaluation: Evaluation) -> bool:
    """Whether a candidate came to the gate of measured latency, or to that rung."""
    return bool(evaluation.each_profile) if name == LATENCY else name in evaluation.metrics


def _rejected_at(name: str, evaluation: Evaluation) -> bool:
    """Whether a gate rejected a candidate, or would have if it had not let it through for an audit."""
    return evaluation.gate == name or any(audit.gate == name for audit in evaluation.audits)


def _verdicts(name: str, ended: Sequence[tuple[Evaluation, bool]]) -> list[bool]:
    """For each audit that came to an end, whether the gate was wrong.

    Where the frontier decides that, the candidate must have been trained to the end.

    ended: evaluations, each with whether its candidate is on the frontier.
    """
    return [
        on_frontier if audit.wrong is None else audit.wrong
        for evaluation, on_frontier in ended
        for audit in evaluation.audits
        if audit.gate == name
        and (audit.wrong is not None or (evaluation.proxy or evaluation.vision) is not None)
    ]
