"""The gates by name, and the audits of their rejections.

A gate lets some of the candidates that it rejects through, to learn how often it is wrong.
"""

import hashlib

from operators.base.value import Value
from operators.vision.vision_language import Model

ARITHMETIC, TABLE, LATENCY, RUNGS = "arithmetic", "table", "latency", "rungs"


class Audit(Value):
    """A gate's reason against a candidate that it let through for an audit.

    gate: which gate.
    reason: why it would have rejected the candidate.
    wrong: whether it would have been wrong; None where the run's frontier decides that.
    """

    gate: str
    reason: str
    wrong: bool | None = None


def audits(share: float, gate: str, architecture: Model, *, seed: int) -> bool:
    """Whether the gate lets this candidate through even if it would reject it.

    share: of the candidates that a gate would reject, how many it lets through.

    The draw depends on the seed, the gate and the architecture, nothing else.
    """
    drawn = hashlib.sha256(f"{seed} {gate} {architecture.digest()}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") < share * 2**64
