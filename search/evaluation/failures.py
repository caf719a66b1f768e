"""What an error says of the candidate that was evaluated: the one place where errors become statuses."""

from typing import Literal

import torch

from operators.base.errors import (
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
    BackendError: "unbuildable",
    MemoryError: "out_of_memory",  # operators.base.errors.OutOfMemoryError is one
    torch.OutOfMemoryError: "out_of_memory",
    DeadlineError: "timeout",
    CrashError: "crashed",
}
CANDIDATE_ERRORS = tuple(_STATUSES)
"""The errors that a candidate is to blame for.

Any other is the machine's fault or a defect of the program.
"""

_LONGEST = 500  # characters: the allocator of PyTorch tells of all its blocks


class Failure(Value):
    """How a candidate failed.

    status: which of an evaluation's statuses.
    reason: why, in one line.
    """

    status: FailureStatus
    reason: str


def failure_of(error: Exception) -> Failure:
    """How the candidate failed at which one of CANDIDATE_ERRORS was raised."""
    status = next(status for kind, status in _STATUSES.items() if isinstance(error, kind))
    return Failure(status=status, reason=described(error))


def described(error: Exception) -> str:
    """An error in one line.

    Those that are not ours say little without the name of their class, which comes first.
    """
    text = error if isinstance(error, FrontrunnerError) else f"{type(error).__name__}: {error}"
    return flat(text, at_most=_LONGEST)
