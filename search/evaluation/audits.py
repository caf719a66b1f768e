"""The gates by name, and which of the candidates that a gate rejects are let through to learn how often it is
wrong.
"""

import hashlib

from operators import Architecture
from operators.base.value import Value
from search.config.evaluation import GateSettings

ARITHMETIC, TABLE, LATENCY, RUNGS = "arithmetic", "table", "latency", "rungs"


class Audit(Value):
    """What a gate said against a candidate that it let through for an audit. wrong: None where the run's
    frontier decides it.
    """

    gate: str
    reason: str
    wrong: bool | None = None


def audits(settings: GateSettings, gate: str, architecture: Architecture, *, seed: int) -> bool:
    """Whether the gate lets this one through even if it would turn it away."""
    drawn = hashlib.sha256(f"{seed} {gate} {architecture.digest()}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") < settings.audit * 2**64
