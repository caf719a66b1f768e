"""Gates from cheap to dear: arithmetic, the latency table, measured latency, rungs of the training.

Each turns away who is not worth the next. It may be wrong, and those turned away do not tell. So a small share of them, chosen by the run's
seed and the architecture alone, is let through, and what becomes of these is counted:
- arithmetic is exact and never audited;
- the table is wrong about a candidate that keeps the constraints when it is measured;
- the measured latency is wrong where a second measurement keeps the constraints, and then that one counts;
- a rung is wrong about a candidate that is on the frontier when it is trained to the end. Who audits one rung passes all.
"""

from collections import Counter
from collections.abc import Callable

from operators import Architecture
from search.config.evaluation import GateSettings
from search.evaluation.audits import ARITHMETIC, TABLE, audits

Check = Callable[[Architecture], str | None]
"""Why a gate turns an architecture away, or None."""


class Screen:
    """The gates before anything is measured; called with an architecture it says whether that may be proposed. Counts what came to each."""

    def __init__(
        self,
        arithmetic: Check | None = None,
        table: Check | None = None,
        *,
        settings: GateSettings,
        seed: int,
    ) -> None:
        self._arithmetic, self._table, self._settings, self._seed = arithmetic, table, settings, seed
        self._seen: Counter[str] = Counter()
        self._turned_away: Counter[str] = Counter()

    def __call__(self, architecture: Architecture) -> bool:
        if self._says(ARITHMETIC, self._arithmetic, architecture):
            return False
        return not self._says(TABLE, self._table, architecture) or audits(
            self._settings, TABLE, architecture, seed=self._seed
        )

    def table_says(self, architecture: Architecture) -> str:
        """What the table has against one that was let through; empty for nothing."""
        return (self._table and self._table(architecture)) or ""

    def take_counts(self) -> dict[str, tuple[int, int]]:
        """Gate -> how many came to it and how many of these it turned away, audited ones included, since this was last asked."""
        counts = {gate: (seen, self._turned_away[gate]) for gate, seen in self._seen.items()}
        self._seen.clear()
        self._turned_away.clear()
        return counts

    def _says(self, gate: str, check: Check | None, architecture: Architecture) -> str | None:
        if check is None:
            return None
        reason = check(architecture)
        self._seen[gate] += 1
        self._turned_away[gate] += reason is not None
        return reason
