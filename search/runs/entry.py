"""One candidate of a run, as the ledger holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from operators.base.value import Value
from operators.vision.vision_language import Model
from search.evaluation.outcome import Evaluation, mean
from search.runs import loads_in
from search.runs.written_models import WrittenModel
from search.searchers.contract import Proposal

REJECTED = ("infeasible", "stopped")  # statuses of candidates that a gate rejected: nothing failed


class Attempt(Value):
    """An evaluation that was begun.

    at: when.
    place: where, for people; empty where that was not known.
    """

    at: datetime
    place: str


class Again(Value):
    """A candidate's second evaluation, with another seed.

    attempts, evaluation, order, ended: as of an Entry.
    trains: whether it is trained again as well; it is only measured where the first measurement was tainted.
    """

    attempts: tuple[Attempt, ...]
    evaluation: Evaluation | None = None
    order: int | None = None
    ended: datetime | None = None
    trains: bool = True


@dataclass(frozen=True)
class Entry:
    """One candidate of a run.

    number: from 0, in the order of the proposals.
    model: what is evaluated; of a ledger it is made when `architecture` is asked for.
    parents: numbers of the candidates that it was made of.
    origin: how it was made, as `seed` or `mutation`.
    evaluation: its scores, the mean of both evaluations where there are two; None while unfinished.
    order: which of all evaluations this was, in the order of their ends; None while unfinished.
    attempts: each time that the evaluation was begun.
    ended: when it was acknowledged.
    screened: gate -> how many architectures came to it and how many it rejected before this one passed
        (`search.gates.screen`).
    again: the second evaluation, where one was begun.
    first: the first evaluation, where a second was begun.
    """

    number: int
    model: Model | WrittenModel
    parents: tuple[int, ...]
    origin: str
    evaluation: Evaluation | None = None
    order: int | None = None
    attempts: tuple[Attempt, ...] = ()
    ended: datetime | None = None
    screened: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    again: Again | None = None
    first: Evaluation | None = None

    @property
    def architecture(self) -> Model:
        """What is evaluated. Raises RunError where the ledger is damaged."""
        return self.model.model if isinstance(self.model, WrittenModel) else self.model

    @property
    def shorthand(self) -> str:
        return self.model.shorthand

    @property
    def size(self) -> tuple[int, int]:
        """Width and depth. Raises RunError where the ledger is damaged."""
        return (
            self.model.size if isinstance(self.model, WrittenModel) else (self.model.width, self.model.depth)
        )

    @property
    def loads_in(self) -> str:
        """The engines that load it, in one line; empty for models that see."""
        known = self.model.loads_in if isinstance(self.model, WrittenModel) else None
        return loads_in.line(self.architecture) if known is None else known

    @property
    def under_way(self) -> tuple[Attempt, ...]:
        """The attempts at the evaluation that has not ended, if there is one."""
        if self.evaluation is None:
            return self.attempts
        return self.again.attempts if self.again is not None and self.again.evaluation is None else ()

    def tainted(self) -> Mapping[str, str]:
        """By metric, why its figure is not to be trusted; without those that are."""
        return self.evaluation.tainted() if self.evaluation else {}

    def with_again(self, again: Again) -> "Entry":
        """Raises ValueError where the first evaluation has not ended."""
        if self.evaluation is None:
            raise ValueError(f"candidate {self.number}: evaluated again before it was evaluated")
        first = self.first or self.evaluation
        return replace(
            self,
            evaluation=mean(first, again.evaluation) if again.evaluation else first,
            again=again,
            first=first,
        )

    @property
    def proposal(self) -> Proposal[Model]:
        return Proposal(
            number=self.number, candidate=self.architecture, parents=self.parents, origin=self.origin
        )


def finished(entries: Sequence[Entry]) -> list[Entry]:
    """Candidates with an evaluation, in the order in which their first ones were acknowledged."""
    return sorted((entry for entry in entries if entry.order is not None), key=lambda entry: entry.order or 0)
