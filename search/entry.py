"""`python -m search.entry` is the command `frontrunner`, as in earlier versions."""

from search.cli.main import main

if __name__ == "__main__":
    main()
