"""Turns the errors of an evaluation into statuses of its candidate; nothing else does that."""

from typing import Literal

import torch

from operators.base.errors import (
    ArchitectureError,
    BackendError,
    CrashError,
    DeadlineError,
    DivergedError,
    FrontrunnerError,
    flat,
)
from operators.base.value import Value

FailureStatus = Literal["diverged", "unbuildable", "out_of_memory", "timeout", "crashed"]

_STATUSES: dict[type[Exception], FailureStatus] = {
    DivergedError: "diverged",
    ArchitectureError: "unbuildable",  # an engine does not hold it
    BackendError: "unbuildable",
    MemoryError: "out_of_memory",  # operators.base.errors.OutOfMemoryError is one
    torch.OutOfMemoryError: "out_of_memory",
    DeadlineError: "timeout",
    CrashError: "crashed",
}
CANDIDATE_ERRORS = tuple(_STATUSES)
"""The errors that are the candidate's fault.

Any other error is the machine's fault or a defect of the program.
"""

# In characters. A message of PyTorch's allocator lists all its blocks.
_LONGEST = 500


class Failure(Value):
    """How a candidate failed.

    status: one of an evaluation's statuses.
    reason: why, in one line.
    """

    status: FailureStatus
    reason: str


def failure_of(error: Exception) -> Failure:
    """Returns how the candidate failed that raised `error`, one of CANDIDATE_ERRORS."""
    status = next(status for kind, status in _STATUSES.items() if isinstance(error, kind))
    return Failure(status=status, reason=described(error))


def described(error: Exception) -> str:
    """Describes an error in one line.

    The class comes first where the error is not ours: the text alone is often too short to understand.
    """
    text = error if isinstance(error, FrontrunnerError) else f"{type(error).__name__}: {error}"
    return flat(text, at_most=_LONGEST)
