"""Preparing kernels: which jobs a set of architectures makes, and what a job reports."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from operators import Architecture
from operators.kernels import libraries as kernel_libraries
from profiler.kernels import prepare as module
from profiler.kernels.prepare import Workload, prepare
from profiler.kernels.warm import jobs, warm

WORKLOAD = Workload(training=((2, 16),), decoding=((1, 8), (2, 8)))
HYBRID = Architecture.from_shorthand("d f m f a f d f", width=64, vocabulary=50)


def test_a_shape_that_occurs_twice_is_one_job() -> None:
    found = jobs([HYBRID, HYBRID], WORKLOAD, "cpu")
    assert [job.layer.operator for job in found] == ["deltanet", "swiglu", "mamba2", "attention"]
    assert all(job.architecture.depth == 1 for job in found)


def test_every_job_is_prepared_and_says_with_which_backend() -> None:
    for job in jobs([HYBRID], WORKLOAD, "cpu"):
        done = prepare(job)
        assert done.problem == ""
        assert done.backend in ("reference", "sdpa")
        assert done.seconds > 0


def test_what_cannot_be_prepared_says_why() -> None:
    job = jobs([HYBRID], WORKLOAD, "cpu", backend="fla")[0]
    done = prepare(job)
    assert "needs a CUDA device" in done.problem
    assert "fla" in done.problem


def test_no_work_is_no_process() -> None:
    assert list(warm([])) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_was_prepared_is_known_by_shape_and_workload(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    ahead = []
    monkeypatch.setattr(
        module, "compiling_ahead", lambda *args, **kwargs: nullcontext(ahead.append(1) or {"a kernel"})
    )
    first, other = (
        jobs([HYBRID], workload, "cuda")[-1]
        for workload in (WORKLOAD, Workload(training=((2, 16),), decoding=()))
    )
    for job, times in ((first, 1), (first, 1), (other, 2), (other, 2)):
        assert prepare(job).problem == ""
        assert len(ahead) == times


@pytest.mark.slow
def test_processes_work_in_parallel() -> None:
    found = list(warm(jobs([HYBRID], WORKLOAD, "cpu"), processes=2))
    assert sorted(done.operator for done in found) == ["attention", "deltanet", "mamba2", "swiglu"]


def test_the_cache_is_keyed_by_versions_and_left_alone_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"torch-{torch.__version__}" in kernel_libraries.cache_folder().name
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kernel_libraries.use_kernel_cache()
    assert "TRITON_CACHE_DIR" not in kernel_libraries.os.environ


def test_a_cache_that_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setenv("TRITON_CACHE_AUTOTUNING", "0")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    kernel_libraries.use_kernel_cache()
    assert kernel_libraries.os.environ["TRITON_CACHE_DIR"] == "/elsewhere"
    assert kernel_libraries.os.environ["TRITON_CACHE_AUTOTUNING"] == "0"
    monkeypatch.delenv("TRITON_CACHE_DIR")
    kernel_libraries.use_kernel_cache()
    assert kernel_libraries.os.environ["TRITON_CACHE_DIR"] == str(kernel_libraries.cache_folder())
