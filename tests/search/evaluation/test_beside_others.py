"""Evaluations that share a GPU: too little memory, and where weights go."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from operators.base.errors import OutOfMemoryError
from search.evaluation import settled
from search.evaluation.settled import beside_others
from search.evaluation.training import _kept

GPU = "cuda:0"
WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(1)}


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the evaluation holds of the device's memory, as it comes and goes."""
    steps: list[str] = []

    def locking(kind: str) -> Any:
        @contextmanager
        def lock(device: str, *, of: str) -> Iterator[None]:
            assert (device, of) == ("cuda:0", "memory")
            steps.append(f"+{kind}")
            try:
                yield
            finally:
                steps.append(f"-{kind}")

        return lock

    for kind in ("shared", "exclusive"):
        monkeypatch.setattr(settled, kind, locking(kind))
    monkeypatch.setattr(settled, "give_back_memory", lambda: steps.append("given back"))
    return steps


@pytest.mark.parametrize("error", [MemoryError(), OutOfMemoryError("b64"), torch.OutOfMemoryError("b64")])
def test_what_found_too_little_memory_is_done_again_alone(held: list[str], error: Exception) -> None:
    def attempt(*, alone: bool) -> str:
        held.append(f"alone={alone}")
        if not alone:
            raise error
        return "done"

    assert beside_others(GPU, attempt) == "done"
    assert held == [
        "+shared", "alone=False", "-shared", "given back", "+exclusive", "alone=True", "-exclusive",
    ]  # fmt: skip


def test_what_fails_alone_too_fails(held: list[str]) -> None:
    def attempt(*, alone: bool) -> str:
        raise MemoryError(f"alone={alone}")

    with pytest.raises(MemoryError, match="alone=True"):
        beside_others(GPU, attempt)
    assert held[-1] == "-exclusive"


def test_other_errors_are_not_tried_again(held: list[str]) -> None:
    def attempt(*, alone: bool) -> str:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        beside_others(GPU, attempt)
    assert held == ["+shared", "-shared"]


def test_a_cpu_s_memory_is_nobody_s(held: list[str]) -> None:
    assert beside_others("llama.cpp", lambda *, alone: alone) is True
    assert held == []


def test_weights_are_written_here_or_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights" / "00003.safetensors"
    assert _kept(WEIGHTS, str(file)) is None
    returned = _kept(WEIGHTS, "")
    assert returned is not None
    for content in (file.read_bytes(), returned):
        assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in load(content).items())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert _kept(WEIGHTS, str(tmp_path / "full")) == returned, "the driver says why"
