"""Where the command starts: nothing heavy is imported before Ctrl-C is understood."""

import sys


def main() -> None:
    try:
        from operators.threads import import_numpy

        import_numpy()
        from search.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
