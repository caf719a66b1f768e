"""Which errors a candidate is to blame for, and what is recorded of them."""

import pytest
import torch

from operators.base import errors
from search.evaluation.failures import CANDIDATE_ERRORS, Failure, described, failure_of

PYTORCHS = torch.OutOfMemoryError("CUDA out of memory.\n  Tried to allocate 2 GiB.")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (errors.DivergedError("loss nan at step 3"), "diverged", "loss nan at step 3"),
        (errors.BackendError("fla is not installed"), "unbuildable", "fla is not installed"),
        (errors.ArchitectureError("layers.0: no"), "unbuildable", "layers.0: no"),
        (errors.OutOfMemoryError("batch 2,\n context 8"), "out_of_memory", "batch 2, context 8"),
        (MemoryError("9 GB"), "out_of_memory", "MemoryError: 9 GB"),
        (PYTORCHS, "out_of_memory", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."),
        (errors.DeadlineError("not finished after 3 s"), "timeout", "not finished after 3 s"),
        (errors.CrashError("signal 11"), "crashed", "signal 11"),
    ],
)
def test_a_candidates_error_has_a_status_and_a_reason(error: Exception, status: str, reason: str) -> None:
    assert isinstance(error, CANDIDATE_ERRORS)
    assert failure_of(error) == Failure(status=status, reason=reason)


@pytest.mark.parametrize(
    "error",
    [errors.DeviceError(""), errors.DataError(""), OSError(28, "full"), RuntimeError(""), ValueError("")],
)
def test_the_machines_faults_and_defects_are_no_candidates(error: Exception) -> None:
    assert not isinstance(error, CANDIDATE_ERRORS)


def test_a_long_error_is_cut_off() -> None:
    assert described(ValueError("x " * 1000)) == ("ValueError: " + "x " * 1000)[:500]
