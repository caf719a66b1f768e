"""Python's collector of garbage, where a program makes very many values at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def many_that_stay() -> Iterator[None]:
    """For values that are made in here by the ten thousand and stay as long as the process.

    The collector looks at everything again each time that it has grown by a quarter, and finds nothing. That
    would be half of the time. So it rests meanwhile, and never looks at what is there at the end.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
