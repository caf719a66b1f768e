"""Preparing kernels: which jobs a set of architectures makes, and what a job reports."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from operators import Architecture
from operators.kernels import libraries as kernel_libraries
from operators.kernels.compile_ahead import Launches
from profiler.kernels import prepare as module
from profiler.kernels import warm as warm_module
from profiler.kernels.prepare import Compiled, Job, Warmed, Workload, described, prepare
from profiler.kernels.warm import jobs, warm
from tests.helpers.faulty_operators import architecture_with

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
        module, "compiling_ahead", lambda *args, **kwargs: nullcontext(ahead.append(1) or Launches({"one"}))
    )
    first, other = (
        jobs([HYBRID], workload, "cuda")[-1]
        for workload in (WORKLOAD, Workload(training=((2, 16),), decoding=()))
    )
    for job, times in ((first, 1), (first, 1), (other, 2), (other, 2)):
        assert prepare(job).problem == ""
        assert len(ahead) == times


@pytest.mark.slow
def test_a_shape_that_breaks_its_process_fails_alone() -> None:
    workload = Workload(training=((1, 8),), decoding=())
    work = jobs([architecture_with("illegal_address"), HYBRID, architecture_with("exit")], workload, "cpu")
    found = {done.shape: done.problem for done in warm(work, processes=1)}
    assert found.pop("fault=illegal_address").endswith("process ended by SIGSEGV while preparing faulty")
    assert found.pop("fault=exit").endswith("while preparing faulty: its last / words")
    assert list(found.values()) == ["", "", "", ""]


class Scripted:
    """A `Preparer` whose jobs choose in the cases that the script says, by their operator."""

    CASES: ClassVar = {"deltanet": {"a", "b"}, "swiglu": {"b"}, "mamba2": {"d"}, "attention": {"a", "c"}}

    def __init__(self, room: object) -> None:
        self.asked: list[tuple[str, str]] = []
        processes.append(self)

    def compile(self, job: Job, claims: Path | None) -> Compiled:
        self.asked.append(("compile", job.layer.operator))
        name = job.layer.operator
        if name == failing:
            return Compiled(described(job, problem="no such kernel"))
        launches = Launches({name}, self.CASES[name], {name} if name == uncompiled else set())
        return Compiled(described(job, problem=""), launches, ready=name == "mamba2")

    def run(self, job: Job) -> Warmed:
        self.asked.append(("run", job.layer.operator))
        short = job.layer.operator == greedy and len(processes) == 1
        return replace(described(job, problem="too little memory" * short), out_of_memory=short)

    def kill(self) -> None:
        pass

    def close(self) -> None:
        pass


processes: list[Scripted] = []
failing = greedy = uncompiled = ""


def _scripted(monkeypatch: pytest.MonkeyPatch, **script: str) -> dict[str, Warmed]:
    processes.clear()
    for name, operator in script.items():
        monkeypatch.setitem(globals(), name, operator)
    monkeypatch.setattr(warm_module, "Preparer", Scripted)
    return {done.operator: done for done in warm(jobs([HYBRID], WORKLOAD, "cpu"), processes=1)}


def test_a_job_whose_cases_others_met_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _scripted(monkeypatch)
    assert {name: done.shares for name, done in found.items()} == {
        "deltanet": False, "attention": False, "mamba2": False, "swiglu": True,
    }  # fmt: skip
    ran = [operator for verb, operator in processes[0].asked if verb == "run"]
    assert sorted(ran) == ["attention", "deltanet"]  # mamba2 was ready


def test_a_job_whose_kernel_does_not_compile_is_run_to_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _scripted(monkeypatch, uncompiled="swiglu")
    assert not found["swiglu"].shares
    assert ("run", "swiglu") in processes[0].asked


def test_what_cannot_be_built_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _scripted(monkeypatch, failing="deltanet")
    assert found["deltanet"].problem == "no such kernel"
    assert ("run", "deltanet") not in processes[0].asked
    assert ("run", "swiglu") in processes[0].asked, "no other job met its case"


def test_what_ran_out_of_memory_is_prepared_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _scripted(monkeypatch, greedy="attention")
    assert found["attention"].problem == ""
    assert [process.asked for process in processes[1:]] == [[("compile", "attention"), ("run", "attention")]]


def test_the_cache_is_keyed_by_versions_and_left_alone_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"torch-{torch.__version__}" in kernel_libraries.cache_folder().name
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kernel_libraries.set_up_triton()
    assert "TRITON_CACHE_DIR" not in kernel_libraries.os.environ


def test_a_cache_that_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setenv("TRITON_CACHE_AUTOTUNING", "0")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    kernel_libraries.set_up_triton()
    assert kernel_libraries.os.environ["TRITON_CACHE_DIR"] == "/elsewhere"
    assert kernel_libraries.os.environ["TRITON_CACHE_AUTOTUNING"] == "0"
    monkeypatch.delenv("TRITON_CACHE_DIR")
    kernel_libraries.set_up_triton()
    assert kernel_libraries.os.environ["TRITON_CACHE_DIR"] == str(kernel_libraries.cache_folder())


def test_who_waits_for_memory_does_not_hold_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the memory may be letting a measurement go first, which waits for all that hold the device."""
    held: list[str] = []

    @contextmanager
    def holding(what: str) -> Iterator[None]:
        held.append(f"+{what}")
        yield
        held.append(f"-{what}")

    monkeypatch.setattr(module, "shared", lambda device: holding("device"))
    monkeypatch.setattr(module._Memory, "taken", lambda self, kind, tokens: holding("memory"))
    assert module.run(jobs([HYBRID], WORKLOAD, "cpu")[0]).problem == ""
    built, work = held[:2], held[2:]
    assert built == ["+device", "-device"]
    assert work == ["+memory", "+device", "-device", "-memory"] * 3
