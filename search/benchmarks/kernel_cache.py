"""An empty cache of compiled kernels, for benchmarks of what has to compile them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_FOLDER = "TRITON_CACHE_DIR"


@contextmanager
def empty_kernel_cache() -> Iterator[None]:
    """Inside, kernels are compiled into an empty folder, and so are those of processes that begin inside."""
    before = os.environ.get(_FOLDER)
    with tempfile.TemporaryDirectory(prefix="frontrunner-kernels-") as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[_FOLDER]
            else:
                os.environ[_FOLDER] = before
