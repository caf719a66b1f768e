"""Where the command starts: nothing heavy is imported before Ctrl-C is understood."""

import os
import sys

NUMPY_THREADS = "OPENBLAS_NUM_THREADS"


def main() -> None:
    try:
        import_numpy()
        from search.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


def import_numpy() -> None:
    """Imports numpy with one thread, unless the variable says otherwise.

    A search multiplies thousands of small matrices: threads wait for each other, spinning, longer than they work. numpy's library reads
    the variable when it is loaded and at no other time; it is taken back for all that is loaded or started later.
    """
    if NUMPY_THREADS in os.environ:
        return
    os.environ[NUMPY_THREADS] = "1"
    import numpy  # noqa: F401

    del os.environ[NUMPY_THREADS]


if __name__ == "__main__":
    main()


def compute_with_one_thread() -> None:
    """For a process beside others that compute: their threads would wait for each other's cores."""
    import_numpy()
    import torch

    torch.set_num_threads(1)
