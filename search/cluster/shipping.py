"""Brings prepared text to machines that did not prepare it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from operators.base.errors import DataError, RunError
from operators.base.files import locked, write_whole
from proxy_train.text.corpus import MANIFEST, Corpus, finished_manifest, read_manifest
from proxy_train.text.shards import shard_name


def files_of(corpus: Corpus) -> dict[str, np.ndarray]:
    """Name -> bytes of each file of a corpus, the manifest last. Raises DataError."""
    manifest, _ = read_manifest(corpus.folder)
    names = [*manifest.files, *map(shard_name, range(len(manifest.shards))), MANIFEST]
    return {name: np.fromfile(corpus.folder / name, dtype=np.uint8) for name in names}


def at_hand(
    corpus: Corpus, files: Mapping[str, Any], *, fetch: Callable[[Any], np.ndarray], cache: Path
) -> Corpus:
    """The corpus on this machine: in its own folder if that is here too, else copied once into the cache.

    Raises DataError if the copy cannot be written or is damaged.

    files: name of each file -> its reference.
    fetch: brings the bytes of a reference.
    cache: folder of the cache on this machine.
    """
    folder = cache / "shipped" / corpus.digest[:16]
    for place in (corpus.folder, folder):
        if _is_there(place, corpus.digest):
            return replace(corpus, folder=place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):  # other workers of this machine wait here, then find the copy
            for name, source in files.items() if not _is_there(folder, corpus.digest) else ():
                write_whole(folder / name, fetch(source).tobytes())
            _require_whole(folder)
    except (OSError, RunError) as error:
        raise DataError(f"{folder}: the prepared text cannot be copied to this machine: {error}") from None
    return replace(corpus, folder=folder)


def _require_whole(folder: Path) -> None:
    """Raises DataError if a copy is damaged, and makes the next try copy it again."""
    try:
        finished_manifest(folder, hashes=True)
    except DataError:
        (folder / MANIFEST).unlink(missing_ok=True)
        raise


def _is_there(folder: Path, digest: str) -> bool:
    """Whether the folder holds the finished corpus with this digest."""
    try:
        return finished_manifest(folder, hashes=False)[1] == digest
    except DataError:
        return False
