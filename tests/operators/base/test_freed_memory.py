"""Memory that is kept for its next use, seen by the pages that the system has to find anew."""

import subprocess
import sys

import pytest

# A process whose C library gives every piece of more than 64 KiB back, before it is told otherwise.
_PROCESS = """
import ctypes, resource
import numpy as np

MIB = 1 << 20
library = ctypes.CDLL(None)
assert library.mallopt(-3, 64 << 10) == 1


def faults(pieces):
    def count():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    for _ in range(3):
        held = [np.ones(MIB, np.uint8) for _ in range(pieces)]
        del held
    before = count()
    held = [np.ones(MIB, np.uint8) for _ in range(pieces)]
    del held
    return count() - before


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


before = faults(4)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this C library")


def run(code: str) -> list[int]:
    """The numbers that a process prints."""
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS + code], capture_output=True, text=True, timeout=120, check=True
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(
    "told",
    [
        "from operators.base.freed_memory import keep_freed_memory\nassert keep_freed_memory()",
        "from profiler.device.device import open_device\nopen_device('cpu')",
        "from proxy_train.train import own_torch_state\nwith own_torch_state(0, 'cpu', 1): pass",
    ],
    ids=["told", "opened device", "training"],
)
def test_the_next_use_of_freed_memory_needs_no_new_pages(told: str) -> None:
    before, after = run(f"{told}\nprint(before, faults(4))")
    assert before >= 4 * 200  # of 256 pages of 4 KiB in each piece
    assert after < 20


@pytest.mark.parametrize(
    "given_back",
    [
        "from operators.base.freed_memory import give_back_freed_memory as give_back",
        "from profiler.device.memory import give_back_memory as give_back",
        "from profiler.device.device import open_device\ngive_back = open_device('cpu').release_memory",
    ],
    ids=["told", "behind a training", "device"],
)
def test_kept_memory_can_be_given_back(given_back: str) -> None:
    kept, given = run(
        f"""
from operators.base.freed_memory import keep_freed_memory
keep_freed_memory()
{given_back}
faults(64)
kept = resident()
give_back()
print(kept // MIB, resident() // MIB)
"""
    )
    assert kept - given >= 60
