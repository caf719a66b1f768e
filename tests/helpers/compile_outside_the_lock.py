"""Holds this machine's processor while kernels compile, and prints when others could have had it."""

import json
import sys
import threading

import torch
import triton
import triton.language as tl

from operators.kernels.compiling import compile_inside
from profiler.device.lock import outside, shared
from tests.helpers import hopper_driver
from tests.helpers.device_lock import free


@triton.jit
def _one(x):
    tl.store(x, 1)


@triton.jit
def _two(x):
    tl.store(x, 2)


@triton.jit
def _wrong(x):
    tl.store(x, unknown)  # noqa: F821 - which does not compile


def main() -> None:
    hopper_driver.use()
    compile_inside(outside)
    found: dict[str, bool] = {}

    def compiles(*, fn, **_):
        found[f"while {fn.name} compiles"] = free()

    triton.knobs.runtime.jit_cache_hook = compiles

    def launch(kernel) -> None:
        try:
            kernel.warmup(torch.float32, grid=(1,))
        except triton.CompilationError:
            found["refused"] = True

    with shared("cpu"):
        launch(_one)
        found["behind it"] = free()
        elsewhere = threading.Thread(target=launch, args=(_two,))  # as autograd does
        elsewhere.start()
        elsewhere.join()
        launch(_wrong)
        found["behind the wrong one"] = free()
    found["at the end"] = free()
    print(json.dumps(found))  # noqa: T201 - which the test reads


if __name__ == "__main__":
    sys.exit(main())
