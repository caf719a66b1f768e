"""What each gate of a run turned away, and how often it was wrong, from the ledger alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from search.config.run import RunConfig
from search.evaluation.audits import ARITHMETIC, LATENCY, TABLE
from search.evaluation.fidelity import rung_metric
from search.evaluation.outcome import Evaluation
from search.runs.entry import Entry
from search.runs.frontier import frontier_of


@dataclass(frozen=True)
class Gate:
    """seen: how many came to the gate. turned_away: how many it found unfit. audited: how many of those were let through and have shown
    what they are; wrong: how many of these were fit (see `search.gates.screen`).

    Before anything is measured an architecture counts each time that the proposer tries it; later each candidate counts once.
    """

    name: str
    seen: int
    turned_away: int
    audited: int
    wrong: int


def counted(entries: Sequence[Entry], config: RunConfig) -> tuple[Gate, ...]:
    """The gates that the run has, from cheap to dear."""
    frontier = {entry.number for entry in frontier_of(entries, config.parsed_objectives())}
    ended = [(entry.evaluation, entry.number in frontier) for entry in entries if entry.evaluation]
    profiled = sum(bool(evaluation.each_profile) for evaluation, _ in ended)
    gates = []
    if config.constraints:
        before = (ARITHMETIC, TABLE) if config.gates.table else (ARITHMETIC,)
        gates = [*(_screen(name, entries, ended) for name in before), _later(LATENCY, profiled, ended)]
    for name in map(rung_metric, config.fidelity.rungs):
        gates.append(_later(name, sum(name in evaluation.metrics for evaluation, _ in ended), ended))
    return tuple(gates)


def _screen(name: str, entries: Iterable[Entry], ended: Sequence[tuple[Evaluation, bool]]) -> Gate:
    """A gate at which architectures are turned away before they become candidates."""
    counts = [entry.screened.get(name, (0, 0)) for entry in entries]
    verdicts = _verdicts(name, ended)
    return Gate(
        name, sum(seen for seen, _ in counts), sum(away for _, away in counts), len(verdicts), sum(verdicts)
    )


def _later(name: str, seen: int, ended: Sequence[tuple[Evaluation, bool]]) -> Gate:
    """A gate at which candidates are turned away."""
    turned_away = sum(evaluation.gate == name or _found_unfit(name, evaluation) for evaluation, _ in ended)
    verdicts = _verdicts(name, ended)
    return Gate(name, seen, turned_away, len(verdicts), sum(verdicts))


def _found_unfit(name: str, evaluation: Evaluation) -> bool:
    return any(audit.gate == name for audit in evaluation.audits)


def _verdicts(name: str, ended: Sequence[tuple[Evaluation, bool]]) -> list[bool]:
    """For each audit that came to an end whether the gate was wrong. What the frontier decides takes a training to the end."""
    found = []
    for evaluation, on_frontier in ended:
        for audit in evaluation.audits:
            if audit.gate == name and (audit.wrong is not None or evaluation.proxy is not None):
                found.append(on_frontier if audit.wrong is None else audit.wrong)
    return found
