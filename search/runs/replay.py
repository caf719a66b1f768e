"""What a proposer hears of evaluations, as they end and when a run is resumed."""

from collections.abc import Callable, Sequence
from functools import partial

from operators.vision.vision_language import Model
from search.evaluation.outcome import Evaluation
from search.objectives import Objective
from search.runs.entry import Entry, finished
from search.runs.frontier import trained_twice
from search.searchers.contract import Proposer


def scores(objectives: Sequence[Objective], evaluation: Evaluation) -> tuple[float, ...] | None:
    """The objectives, all to be minimized; None for a candidate without scores."""
    if evaluation.status != "ok":
        return None
    return tuple(objective.cost(evaluation.metrics) for objective in objectives)


def tell_again(proposer: Proposer[Model], entry: Entry, objectives: Sequence[Objective]) -> None:
    """Tells the mean scores of a candidate that was trained twice; nothing where the second has none."""
    if trained_twice(entry) and entry.evaluation is not None:
        mean_scores = scores(objectives, entry.evaluation)
        if mean_scores is not None:
            proposer.tell_again(entry.number, mean_scores)


def replay(proposer: Proposer[Model], entries: Sequence[Entry], objectives: Sequence[Objective]) -> None:
    """Tells a new proposer all that the ledger holds, in the order in which it was acknowledged."""
    for entry in entries:
        proposer.restore(entry.proposal)
    by_order: list[tuple[int, Callable[[], None]]] = []
    for entry in finished(entries):
        first, again = entry.first or entry.evaluation, entry.again
        if entry.order is not None and first is not None:
            by_order.append((entry.order, partial(proposer.tell, entry.number, scores(objectives, first))))
        if again is not None and again.order is not None:
            by_order.append((again.order, partial(tell_again, proposer, entry, objectives)))
    for _, tell in sorted(by_order, key=lambda pair: pair[0]):
        tell()
