"""Gates from cheap to dear: arithmetic, the latency table, measured latency, rungs of the training.

Each turns away who is not worth the next. It may be wrong, and those turned away do not tell. So a small share of them, chosen by the run's
seed and the architecture alone, is let through, and what becomes of these is counted:
- arithmetic is exact and never audited;
- the table is wrong about a candidate that keeps the constraints when it is measured;
- the measured latency is wrong where a second measurement keeps the constraints, and then that one counts;
- a rung is wrong about a candidate that is on the frontier when it is trained to the end. Who audits one rung passes all.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from operators import Architecture
from operators.base.value import Value
from profiler.table.parts import Phase

ARITHMETIC, TABLE, LATENCY, RUNGS = "arithmetic", "table", "latency", "rungs"

TABLE_METRICS: dict[str, Phase] = {
    "decode_ms": "decode",
    "decode_tokens_per_s": "decode",
    "prefill_ms": "prefill",
}
"""What the latency table predicts, and of which phase."""

Check = Callable[[Architecture], str | None]
"""Why a gate turns an architecture away, or None."""


class GateSettings(Value):
    """The `gates:` section of a run.

    table: turn away who breaks a constraint on latency by more than the error of the device's latency table, before it is measured.
    audit: the share of those turned away, by each gate but arithmetic, that is let through to learn how often the gate is wrong.
    """

    table: bool = False
    audit: Annotated[float, Field(ge=0, le=1)] = 0.05


class Audit(Value):
    """What a gate said against a candidate that it let through for an audit. wrong: None where the run's frontier decides it."""

    gate: str
    reason: str
    wrong: bool | None = None


def audits(settings: GateSettings, gate: str, architecture: Architecture, *, seed: int) -> bool:
    """Whether the gate lets this one through even if it would turn it away."""
    drawn = hashlib.sha256(f"{seed} {gate} {architecture.digest()}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") < settings.audit * 2**64


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
