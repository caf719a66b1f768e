"""Where the command starts: nothing heavy is imported before Ctrl-C is understood."""

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


if __name__ == "__main__":
    main()
