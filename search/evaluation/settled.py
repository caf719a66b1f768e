"""How an attempt to evaluate ends: with what it found, or with the outcome of a candidate that failed."""

import platform
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import torch

from operators.base.errors import DataError, DeviceError
from profiler.device.lock import exclusive, shared
from profiler.device.memory import give_back_memory
from profiler.device.names import computes_on
from search.evaluation.failures import CANDIDATE_ERRORS, described, failure_of
from search.evaluation.outcome import Evaluation, Outcome, Status

T = TypeVar("T")


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__}


def failure(seed: int, status: Status, reason: str, **known: object) -> Outcome:
    """Returns the outcome of a candidate that has no scores."""
    data = {"status": status, "reason": reason, "seed": seed, "versions": versions(), **known}
    return Outcome(Evaluation.model_validate(data))


def settled(seed: int, known: Mapping[str, object], work: Callable[[], T]) -> T | Outcome:
    """Returns what `work` returns, or the outcome of a candidate that ends it with an error.

    known: fields of the evaluation that are known when the error happens.
    """
    try:
        return work()
    except CANDIDATE_ERRORS as error:
        found = failure_of(error)
        failed = failure(seed, found.status, found.reason, **known)
    except (DeviceError, DataError, OSError):
        raise
    except Exception as error:  # a defect: the driver records it with its traceback and stops the search
        failed = failure(seed, "error", described(error), traceback=traceback.format_exc(), **known)
    give_back_memory()  # the error, which held the model, is gone
    return failed


def beside_others(device: str, attempt: Callable[..., T]) -> T:
    """Does work that may find too little memory on a GPU, as other evaluations or trainings use it.

    After a lack of memory it is done again with the memory to itself, and so ends as if it were alone.

    device: where the work is done, as a run or an experiment names it
    attempt: called as attempt(alone=False), and after a lack of memory as attempt(alone=True)
    """
    device = computes_on(device)
    if device == "cpu":
        return attempt(alone=True)
    with shared(device, of="memory"), suppress(MemoryError, torch.OutOfMemoryError):
        return attempt(alone=False)
    give_back_memory()
    with exclusive(device, of="memory"):
        return attempt(alone=True)
