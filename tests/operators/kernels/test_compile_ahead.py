"""Compiling before launching: for a GPU that is not there, and on a real one."""

import json
import threading
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from operators.kernels.compile_ahead import compiling_ahead  # noqa: E402
from tests.helpers.without_interpreter import printed  # noqa: E402

SIZE = 1000


@triton.autotune(
    configs=[triton.Config({"block": size}, num_warps=warps) for size in (64, 128) for warps in (2, 4)],
    key=["size"],
)
@triton.heuristics({"even": lambda given: given["size"] % 2 == 0})
@triton.jit
def _add_one(x, y, size, block: tl.constexpr, even: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    if even:
        tl.store(y + at, tl.load(x + at, mask=at < size) + 1, mask=at < size)


@triton.jit
def _double(x, y, size, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y + at, tl.load(x + at, mask=at < size) * 2, mask=at < size)


def test_every_configuration_is_compiled_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    assert json.loads(printed("compile_ahead_for_hopper", tmp_path)) == {
        "kernels": 4 + 1 + 1,
        "cases": 1,
        "failed": 1,
        "warps": {"_add_one": [2, 2, 4, 4], "_double": [4]},
        "for": ["sm_90a"],
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_configuration_is_compiled_and_nothing_runs() -> None:
    x, y = torch.randn(SIZE, device="cuda"), torch.zeros(SIZE, device="cuda")

    def launch_both() -> None:
        _add_one[lambda meta: (triton.cdiv(SIZE, meta["block"]),)](x, y, SIZE)
        elsewhere = threading.Thread(
            target=lambda: _double[(triton.cdiv(SIZE, 64),)](y, y, SIZE, block=64)
        )  # as autograd does
        elsewhere.start()
        elsewhere.join()

    with compiling_ahead(4):
        launch_both()
    assert not y.any()
    compiled = {"add": dict(_compiled(_add_one.fn.fn)), "double": dict(_compiled(_double))}
    assert [len(binaries) for binaries in compiled.values()] == [4, 1]

    launch_both()
    torch.testing.assert_close(y, (x + 1) * 2)
    assert compiled == {"add": _compiled(_add_one.fn.fn), "double": _compiled(_double)}


def _compiled(kernel):
    return kernel.device_caches[torch.cuda.current_device()][0]
