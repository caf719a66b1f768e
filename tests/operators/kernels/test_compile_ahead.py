"""Compiling before launching: for a GPU that is not there, and on a real one."""

import json
import threading
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

from operators.kernels.compile_ahead import compiling_ahead  # noqa: E402
from tests.helpers.compile_ahead_for_hopper import SIZE, add_one, double  # noqa: E402
from tests.helpers.without_interpreter import printed  # noqa: E402


def test_every_configuration_is_compiled_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    assert json.loads(printed("compile_ahead_for_hopper", tmp_path)) == {
        "kernels": 4 + 1 + 1,
        "cases": 1,
        "failed": 1,
        "warps": {"add_one": [2, 2, 4, 4], "double": [4]},
        "for": ["sm_90a"],
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_configuration_is_compiled_and_nothing_runs() -> None:
    x, y = torch.randn(SIZE, device="cuda"), torch.zeros(SIZE, device="cuda")

    def launch_both() -> None:
        add_one[lambda meta: (triton.cdiv(SIZE, meta["block"]),)](x, y, SIZE)
        elsewhere = threading.Thread(
            target=lambda: double[(triton.cdiv(SIZE, 64),)](y, y, SIZE, block=64)
        )  # as autograd does
        elsewhere.start()
        elsewhere.join()

    with compiling_ahead(4):
        launch_both()
    assert not y.any()
    compiled = {"add": dict(_compiled(add_one.fn.fn)), "double": dict(_compiled(double))}
    assert [len(binaries) for binaries in compiled.values()] == [4, 1]

    launch_both()
    torch.testing.assert_close(y, (x + 1) * 2)
    assert compiled == {"add": _compiled(add_one.fn.fn), "double": _compiled(double)}


def _compiled(kernel):
    return kernel.device_caches[torch.cuda.current_device()][0]
