"""Compiles the kernels of a run's space in a process of its own, while the run is driven.

A candidate then finds most of its kernels compiled, by cores that would idle. The process has a low priority
and ends with the one that drives, however that ends.

Its command: python -m search.runs.warming_process SOCKET PARENT CONFIG DEVICE PROCESSES
"""

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from operators.base.threads import usable_cores
from profiler.device.names import computes_on
from profiler.kernels.warm import compile_in_the_background
from profiler.process.child_process import Child, settle_in
from search.config import run as config_module
from search.config.run import RunConfig
from search.runs.folder import RunFolder
from search.runs.warming import first_candidates_first, warm_jobs

# Cores that are left to the search itself and to the system, beside one for each evaluation.
_CORES_LEFT = 2
# How much less than other processes the compiling ones get of a core (nice).
_NICENESS = 10


@contextmanager
def kernels_compiled_meanwhile(config: RunConfig, folder: RunFolder) -> Iterator[None]:
    """Inside, spare cores of this machine compile what candidates of a run will need on its GPU.

    On a CPU there is nothing to compile. Where the largest batch is measured nothing is compiled either:
    that measurement uses all of the GPU's memory.
    """
    processes = len(usable_cores()) - config.at_once - _CORES_LEFT
    on_gpu = computes_on(config.device).startswith("cuda")
    if not on_gpu or processes < 1 or config.vision is not None or config.profile.largest_batch:
        yield
        return
    arguments = (str(folder.config.absolute()), config.device, str(processes))
    child = Child("search.runs.warming_process", *arguments, called="compiling")
    try:
        yield
    finally:
        child.close()


def main(parent: int, config: str, device: str, processes: int) -> None:
    settle_in(parent)
    os.nice(_NICENESS)
    work = warm_jobs([config], batches=None, tokens=None, device=device)
    # Later candidates have any operator, so that none should come last with all of its shapes.
    random.Random(0).shuffle(work)  # noqa: S311 - no secret
    # The first ones begin at once, with nothing compiled. In a random order nearly all is for later ones.
    work = first_candidates_first(work, config_module.load(Path(config)))
    compile_in_the_background(work, processes=processes)


if __name__ == "__main__":
    main(int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
