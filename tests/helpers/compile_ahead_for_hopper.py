"""Compiles kernels of two kinds ahead, for a Hopper GPU that is not there, and prints what came of it."""

import json
import sys
import threading

import torch
import triton
import triton.language as tl

from operators.kernels.compile_ahead import compiling_ahead
from tests.helpers import hopper_driver

SIZE = 1000


@triton.autotune(
    configs=[triton.Config({"block": size}, num_warps=warps) for size in (64, 128) for warps in (2, 4)],
    key=["size"],
)
@triton.heuristics({"even": lambda given: given["size"] % 2 == 0})
@triton.jit
def add_one(x, y, size, block: tl.constexpr, even: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    if even:
        tl.store(y + at, tl.load(x + at, mask=at < size) + 1, mask=at < size)


@triton.jit
def double(x, y, size, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y + at, tl.load(x + at, mask=at < size) * 2, mask=at < size)


@triton.jit
def _wrong(x):
    tl.store(x, unknown)  # noqa: F821 - which does not compile


def main() -> None:
    hopper_driver.use()
    x, y = torch.ones(SIZE), torch.zeros(SIZE)
    with compiling_ahead(2) as launches:
        for _ in range(2):
            add_one[lambda meta: (triton.cdiv(SIZE, meta["block"]),)](x, y, SIZE)
        elsewhere = threading.Thread(target=lambda: double[(16,)](y, y, SIZE, block=64))  # as autograd does
        elsewhere.start()
        elsewhere.join()
        _wrong[(1,)](x)
    kept = {kernel.__name__: kernel.device_caches[0][0] for kernel in (add_one.fn.fn, double)}
    found = {
        "kernels": len(launches.kernels),
        "cases": len(launches.cases),
        "failed": len(launches.failed),
        "warps": {name: sorted(each.metadata.num_warps for each in of.values()) for name, of in kept.items()},
        "for": sorted({line.split()[1] for of in kept.values() for each in of.values()
                       for line in each.asm["ptx"].splitlines() if line.startswith(".target")}),
    }  # fmt: skip
    print(json.dumps(found))  # noqa: T201 - which the test reads


if __name__ == "__main__":
    sys.exit(main())
