"""Launches a kernel that keeps the fastest of three configurations, on a Hopper GPU that is not there.

Which one is the fastest here (from 0) is the first argument. The other one is how many such processes launch
it at the same time.

Prints how often one was timed, which one was taken, and which one's function was called before it.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import triton
import triton.language as tl
from triton.runtime.jit import JITFunction

from operators.kernels import libraries
from tests.helpers import hopper_driver

called: list[int] = []
timed: list[int] = []


def _before(arguments):
    called.append(arguments["block"])


@triton.autotune([triton.Config({"block": size}, pre_hook=_before) for size in (16, 32, 64)], key=["size"])
@triton.jit
def _kernel(x, size, block: tl.constexpr):
    tl.store(x + block, size)


def timings(call: Callable[[], None], quantiles: Sequence[float]) -> list[float]:
    time.sleep(0.1)  # so that other processes are there before the choice is made
    timed.append(len(timed))
    return [0.0 if timed[-1] == int(sys.argv[1]) else 1.0 for _ in quantiles]


def wait_for_others(count: int) -> None:
    """Until so many processes with this folder of kernels are here."""
    folder = Path(os.environ["TRITON_CACHE_DIR"]) / "here"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < count:
        time.sleep(0.01)


def main() -> None:
    hopper_driver.use()
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_capability = lambda: (9, 0)
    libraries.cache_folder = lambda: None  # the caller has set where kernels lie
    libraries.set_up_triton()
    _kernel.cache_results = True  # which Triton reads from the environment when a kernel is defined
    libraries._brief_bench = timings
    libraries.narrow("__main__")
    JITFunction.run = lambda self, *arguments, **_: None  # nothing to launch it on
    x = torch.zeros(1)
    wait_for_others(int(sys.argv[2]))
    _kernel[(1,)](x, 7)
    found = {"timed": len(timed), "taken": _kernel.best_config.kwargs, "called": called}
    print(json.dumps(found))  # noqa: T201 - which the test reads


if __name__ == "__main__":
    sys.exit(main())
