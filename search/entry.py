"""Where the command starts: nothing heavy is imported before Ctrl-C is understood."""

import os
import sys

NUMPY_THREADS = "OPENBLAS_NUM_THREADS"


def main() -> None:
    for number in (0, 1, 2):
        _open_if_closed(number)
    try:
        import_numpy()
        from search.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


def _open_if_closed(number: int) -> None:
    """Lets a standard stream lead nowhere where the caller closed it (`>&-`): a file that is opened later would take its place."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        names = ("stdin", "stdout", "stderr")
        setattr(sys, names[number], open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


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
