"""Kernels that are compiled while a search is driven: when, and with what."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from profiler.kernels import warm as warm_module
from profiler.kernels.prepare import Compiled, Job, described
from search.config.run import RunConfig
from search.runs import warming_process
from search.runs.folder import RunFolder
from search.runs.warming_process import kernels_compiled_meanwhile


class Begun:
    """Stands for the process."""

    all: "list[Begun]" = []  # noqa: RUF012

    def __init__(self, *arguments: str, called: str) -> None:
        self.arguments, self.closed = arguments, False
        Begun.all.append(self)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    Begun.all.clear()
    monkeypatch.setattr(warming_process, "Child", Begun)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


def test_a_process_compiles_while_a_search_on_a_gpu_is_driven(tmp_path: Path) -> None:
    config = RunConfig.model_validate({"device": "cuda", "workers": 2})
    folder = RunFolder(tmp_path / "run")
    with suppress(KeyboardInterrupt), kernels_compiled_meanwhile(config, folder):
        # One core for each of four evaluations, and two besides, are left.
        module, *arguments = Begun.all[0].arguments
        assert arguments == [str(folder.config), "cuda", "10"]
        assert module == warming_process.__name__
        assert not Begun.all[0].closed
        raise KeyboardInterrupt
    assert Begun.all[0].closed


@pytest.mark.parametrize(
    "settings",
    [
        {"device": "cpu"},
        {"device": "llama.cpp"},
        {"device": "cuda", "workers": 8},  # no core is left
        {"device": "cuda", "profile": {"largest_batch": True}},
    ],
)
def test_nothing_is_compiled_where_nothing_could_be(tmp_path: Path, settings: dict[str, Any]) -> None:
    with kernels_compiled_meanwhile(RunConfig.model_validate(settings), RunFolder(tmp_path)):
        assert Begun.all == []


def test_every_job_is_compiled_and_none_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    class Compiles:
        def __init__(self, room: object) -> None:
            pass

        def compile(self, job: Job, claims: Path) -> Compiled:
            assert claims.is_dir()
            compiled.append(job.layer.operator)
            return Compiled(described(job, problem="no such kernel"))

        def kill(self) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(warm_module, "Preparer", Compiles)
    work = warming_process.warm_jobs(["tiny-hybrid"], batches=[1], tokens=8, device="cpu")
    warm_module.compile_in_the_background(work, processes=2)
    assert sorted(compiled) == sorted(job.layer.operator for job in work)


def test_the_process_compiles_all_of_the_space_and_begins_with_what_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("space: {operators: [attention, swiglu], widths: [64, 128]}", encoding="utf-8")
    asked: list[tuple[Sequence[Job], int]] = []
    monkeypatch.setattr(warming_process, "settle_in", lambda parent: None)
    monkeypatch.setattr(os, "nice", lambda less: None)
    monkeypatch.setattr(
        warming_process, "compile_in_the_background", lambda work, processes: asked.append((work, processes))
    )
    warming_process.main(1, str(config), "cuda", 3)
    ((work, processes),) = asked
    assert processes == 3
    every = warming_process.warm_jobs([str(config)], batches=None, tokens=None, device="cuda")
    assert len(work) == len(every)
    assert all(job in work for job in every)
    smallest, *_ = [job for job in work if not job.whole]
    assert smallest.architecture.width == 64  # the space's first corner
