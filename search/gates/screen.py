"""Gates from cheap to dear: arithmetic, the latency table, measured latency, rungs of the training.

Each gate rejects candidates that are not worth the next one's cost. A rejected candidate is never
measured, so nothing would show a wrong rejection: hence the audits. A small share of what a gate rejects
is let through, chosen by the run's seed and the architecture alone, and what becomes of it is counted:
- arithmetic is exact and never audited;
- the table is wrong about a candidate that keeps the constraints when it is measured;
- the measured latency is wrong where a second measurement keeps the constraints; the second then counts;
- a rung is wrong about a candidate that is on the frontier when it is trained to the end. A candidate
  that audits one rung passes all.
"""

from collections import Counter
from collections.abc import Callable

from operators.vision.vision_language import Model
from search.evaluation.audits import ARITHMETIC, TABLE, audits

Check = Callable[[Model], str | None]
"""Why a gate rejects a model, or None."""


class Screen:
    """The gates before anything is measured: says whether a model may be proposed.

    It counts what came to each gate.
    """

    def __init__(
        self,
        arithmetic: Check | None = None,
        table: Check | None = None,
        *,
        audit: float,
        seed: int,
    ) -> None:
        """arithmetic, table: the gates; None for one that the run has not.

        audit: the share of candidates that the table would reject and that are let through.
        seed: of the run.
        """
        self._arithmetic, self._table, self._audit, self._seed = arithmetic, table, audit, seed
        self._seen: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()

    def __call__(self, model: Model) -> bool:
        if self._reason(ARITHMETIC, self._arithmetic, model):
            return False
        return not self._reason(TABLE, self._table, model) or audits(
            self._audit, TABLE, model, seed=self._seed
        )

    def table_says(self, model: Model) -> str:
        """What the table has against a model that was let through; empty for nothing."""
        return (self._table and self._table(model)) or ""

    def take_counts(self) -> dict[str, tuple[int, int]]:
        """Since the last call: gate -> how many came to it, and how many it rejected, audits included."""
        counts = {gate: (seen, self._rejected[gate]) for gate, seen in self._seen.items()}
        self._seen.clear()
        self._rejected.clear()
        return counts

    def _reason(self, gate: str, check: Check | None, model: Model) -> str | None:
        if check is None:
            return None
        reason = check(model)
        self._seen[gate] += 1
        self._rejected[gate] += reason is not None
        return reason
