"""The names that a run may have, and lists of names in messages."""

import re
from collections.abc import Sequence
from datetime import datetime

from operators.base.errors import RunError

# A name is also a folder's name, a job's id and an argument: no slash, no blank, no leading `-` or `.`.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """Returns the name. Raises RunError if a run may not have it."""
    if not NAME.fullmatch(name):
        raise RunError(
            f"run name {name!r}: expected 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    return name


def new_name(stem: str) -> str:
    """A name for a new run, of its configuration's name and the time."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:40] or "run"
    return f"{plain}-{datetime.now():%Y%m%d-%H%M%S}"


def listed(names: Sequence[str], *, at_most: int = 8) -> str:
    """Names for a message, the latest at the end.

    at_most: lists longer than this are cut to their latest names, with the number of all.
    """
    if len(names) <= at_most:
        return ", ".join(names) or "none"
    return f"{', '.join(names[-at_most:])} (the latest {at_most} of {len(names)})"
