"""The entry point of the command. It imports slow modules only where it handles Ctrl-C."""

import os
import sys


def main() -> None:
    for number in (0, 1, 2):
        _open_if_closed(number)
    try:
        from operators.base.threads import import_numpy

        import_numpy()
        from search.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


def _open_if_closed(number: int) -> None:
    """Opens /dev/null in place of a standard stream that the caller closed (`>&-`).

    Otherwise the next file that the process opens would get the stream's number, and be written to.
    """
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        names = ("stdin", "stdout", "stderr")
        setattr(sys, names[number], open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    main()
