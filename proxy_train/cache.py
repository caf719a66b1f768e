"""Folders of prepared data: built aside and then renamed, so that nothing half-written looks whole."""

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from operators.base.errors import DataError
from operators.base.files import locked
from proxy_train.text.shards import FileRecord, damage

# Called as (what is being done, items done, items in all or 0 while that is unknown).
OnProgress = Callable[[str, int, int], None]

T = TypeVar("T")
S = TypeVar("S", bound=FileRecord)


def default_cache() -> Path:
    """The folder for prepared data where the user names no other."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "frontrunner"


def cached(folder: Path, opened: Callable[[Path], T], build: Callable[[Path], None], *, what: str) -> T:
    """What is in a folder of the cache: opened where it is whole, else built first.

    A folder that is damaged is handed to `build`, which mends it. Processes that want the same folder wait
    for each other.

    opened: opens a folder, and raises DataError for one that is missing or damaged.
    build: makes or continues the content of a folder.
    what: the content, in words.

    Raises DataError where the cache cannot be written, and what `build` raises.
    """
    building = folder.with_name(f".building-{folder.name}")
    with contextlib.suppress(DataError):
        return opened(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            with contextlib.suppress(DataError):  # another process was faster
                return opened(folder)
            if folder.exists():
                shutil.rmtree(building, ignore_errors=True)
                folder.rename(building)
            build(building)
            building.rename(folder)
    except OSError as error:
        raise DataError(
            f"{folder.parent}: the prepared {what} cannot be written: {error.strerror}; the next start goes "
            "on from here, or with XDG_CACHE_HOME in another folder"
        ) from None
    return opened(folder)


def whole_shards(folder: Path, shards: Sequence[S], name: Callable[[int], str]) -> tuple[S, ...]:
    """The shards of a folder before the first one that is missing or damaged.

    name: of a shard's file, by its number.
    """
    numbered = takewhile(lambda item: damage(folder / name(item[0]), item[1]) is None, enumerate(shards))
    return tuple(shard for _, shard in numbered)
