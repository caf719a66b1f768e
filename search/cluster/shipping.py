"""Prepared text on machines that did not prepare it."""

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
    """The bytes of each file of a corpus, by its name, the manifest last. Raises DataError."""
    manifest, _ = read_manifest(corpus.folder)
    names = [*manifest.files, *map(shard_name, range(len(manifest.shards))), MANIFEST]
    return {name: np.fromfile(corpus.folder / name, dtype=np.uint8) for name in names}


def at_hand(
    corpus: Corpus, files: Mapping[str, Any], *, fetch: Callable[[Any], np.ndarray], cache: Path
) -> Corpus:
    """The same corpus on this machine: where it lies, if that is here too, else in a folder of `cache`, copied there once.

    files: what `fetch` takes to bring each file of it. Raises DataError where it cannot be written, or is not whole then.
    """
    folder = cache / "shipped" / corpus.digest[:16]
    for found in (corpus.folder, folder):
        if _is_there(found, corpus.digest):
            return replace(corpus, folder=found)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):  # others on this machine wait here, and find it done
            for name, source in files.items() if not _is_there(folder, corpus.digest) else ():
                write_whole(folder / name, fetch(source).tobytes())
            _require_whole(folder)
    except (OSError, RunError) as error:
        raise DataError(f"{folder}: the prepared text cannot be copied to this machine: {error}") from None
    return replace(corpus, folder=folder)


def _require_whole(folder: Path) -> None:
    """Raises DataError where it is not, and sees to it that it is copied again."""
    try:
        finished_manifest(folder, hashes=True)
    except DataError:
        (folder / MANIFEST).unlink(missing_ok=True)
        raise


def _is_there(folder: Path, digest: str) -> bool:
    try:
        return finished_manifest(folder, hashes=False)[1] == digest
    except DataError:
        return False
