"""Pools of Python processes that do not import from the folder in which the program was started."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

SAFE_PATH = "PYTHONSAFEPATH"
"""Python's variable: the start folder is not on the path of a process that is begun with -c or -m."""


@contextmanager
def process_pool(
    count: int | None = None, *, tasks_each: int | None = None, initializer: Callable[[], None] | None = None
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that are begun anew, not forked.

    multiprocessing begins them with `python -c`, which would look for the standard library in the start
    folder first: a file `random.py` there would end them. Later it gives them the path of this process.

    count: number of processes; None for as many as there are cores.
    tasks_each: tasks after which a process is replaced; None for never.
    initializer: called first in each process.
    """
    before = os.environ.get(SAFE_PATH)
    # The pool begins processes until its end.
    os.environ[SAFE_PATH] = "1"
    try:
        with ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=initializer, max_tasks_per_child=tasks_each
        ) as pool:
            yield pool
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before
