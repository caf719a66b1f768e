"""What the gates of a run rejected, as a table for a terminal."""

from collections.abc import Sequence

from search.runs.gate_counts import Gate
from search.view.terminal_tables import Sheet, sheet


def gates_table(gates: Sequence[Gate]) -> Sheet:
    """A row for each gate."""
    rows = (
        (gate.name, *(f"{count:,}" for count in (gate.seen, gate.turned_away, gate.audited, gate.wrong)))
        for gate in gates
    )
    return sheet(("gate", "seen", "rejected", "of these audited", "wrong"), rows, words=("gate",))
