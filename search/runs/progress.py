"""What a search reports while it goes on: values for a callback, printed elsewhere."""

from dataclasses import dataclass

from proxy_train.text.source_record import SourceRecord
from search.objectives import Objective
from search.runs.entry import REJECTED, Entry
from search.runs.frontier import scored


@dataclass(frozen=True)
class Checking:
    """The text is about to be prepared and the configuration to be checked."""


@dataclass(frozen=True)
class UnknownTokens:
    """The tokenizer has no token for some of the text.

    unknown: its unknown tokens in the validation text.
    tokens: all tokens of the validation text.
    """

    unknown: int
    tokens: int


@dataclass(frozen=True)
class FewerWorkers:
    """This machine has too few cores for the workers of the configuration.

    wanted: workers of the configuration.
    workers: workers that are started.
    cores: cores that this process may use.
    """

    wanted: int
    workers: int
    cores: int


@dataclass(frozen=True)
class DesignsLeftOut:
    """`space.exportable_to` keeps published designs out of the first candidates.

    reasons: of each, by its name.
    """

    reasons: dict[str, str]


@dataclass(frozen=True)
class TrackerFailed:
    """A tracker failed; the search goes on without it.

    name: of the tracker.
    reason: why.
    """

    name: str
    reason: str


Event = Checking | SourceRecord | UnknownTokens | FewerWorkers | DesignsLeftOut | TrackerFailed
"""A SourceRecord says which files of the text are read, before any is read."""


class Interrupted(KeyboardInterrupt):
    """A run was interrupted; what was evaluated is in its ledger.

    done: candidates that are evaluated.
    candidates: candidates of the configuration.
    resume: the command that goes on.
    """

    def __init__(self, *, done: int, candidates: int, resume: str) -> None:
        super().__init__()
        self.done, self.candidates, self.resume = done, candidates, resume


@dataclass(frozen=True)
class Progress:
    """Where a search stands.

    total: candidates of the configuration.
    entries: candidates so far, by number.
    running: evaluations under way.
    seconds: since this process began to drive the run.
    here: evaluations that ended since then.
    limit: seconds that this process had when it began; None where the run's time is not limited.
    objectives: of the run.
    """

    total: int
    entries: tuple[Entry, ...]
    running: int
    seconds: float
    here: int
    limit: float | None = None
    objectives: tuple[Objective, ...] = ()

    @property
    def done(self) -> int:
        return sum(entry.evaluation is not None for entry in self.entries)

    @property
    def failed(self) -> int:
        return sum(
            entry.evaluation is not None and entry.evaluation.status not in ("ok", *REJECTED)
            for entry in self.entries
        )

    @property
    def best_loss(self) -> float | None:
        """In nats per token, of answers where candidates see; None before the first training has ended."""
        losses = [
            entry.evaluation.metrics[name]
            for entry in self.entries
            for name in ("loss", "answer_loss")
            if entry.evaluation and name in entry.evaluation.metrics
        ]
        return min(losses, default=None)

    @property
    def frontier(self) -> list[Entry]:
        """The candidates that no other dominates. It is computed at each call."""
        return scored(self.entries, self.objectives).frontier()

    @property
    def seconds_left(self) -> float | None:
        """By the mean pace so far, at most to the run's limit.

        None before the first evaluation of a run without a limit.
        """
        paced = [self.seconds / self.here * (self.total - self.done)] if self.here else []
        limited = [max(0.0, self.limit - self.seconds)] if self.limit is not None else []
        return min((*paced, *limited), default=None)
