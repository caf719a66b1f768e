"""Brings prepared text and images to machines that did not prepare them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from operators.base.errors import DataError, RunError
from operators.base.files import locked, write_whole
from proxy_train.images.image_corpus import ImageCorpus, open_images
from proxy_train.images.image_corpus import shard_name as image_shard
from proxy_train.text.corpus import MANIFEST, Corpus, finished_manifest, read_manifest
from proxy_train.text.shards import shard_name

Prepared = TypeVar("Prepared", Corpus, ImageCorpus)


def files_of(prepared: Corpus | ImageCorpus) -> dict[str, np.ndarray]:
    """Name -> bytes of each file of prepared text or images, the manifest last. Raises DataError."""
    if isinstance(prepared, ImageCorpus):
        files = prepared.manifest.files
        shards = [image_shard(number) for number in range(len(prepared.manifest.shards))]
    else:
        manifest, _ = read_manifest(prepared.folder)
        files, shards = manifest.files, [shard_name(number) for number in range(len(manifest.shards))]
    return {name: _bytes_of(prepared.folder / name) for name in (*files, *shards, MANIFEST)}


def at_hand(
    prepared: Prepared, files: Mapping[str, Any], *, fetch: Callable[[Any], np.ndarray], cache: Path
) -> Prepared:
    """The same on this machine: in its own folder if that is here too, else copied once into the cache.

    Raises DataError if the copy cannot be written or is damaged.

    files: name of each file -> its reference.
    fetch: brings the bytes of a reference.
    cache: folder of the cache on this machine.
    """
    folder = cache / "shipped" / prepared.digest[:16]
    for place in (prepared.folder, folder):
        if _is_there(place, prepared):
            return replace(prepared, folder=place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):  # other workers of this machine wait here, then find the copy
            for name, source in files.items() if not _is_there(folder, prepared) else ():
                write_whole(folder / name, fetch(source).tobytes())
            _require_whole(folder, prepared)
    except (OSError, RunError) as error:
        what = "images" if isinstance(prepared, ImageCorpus) else "text"
        raise DataError(f"{folder}: the prepared {what} cannot be copied to this machine: {error}") from None
    return replace(prepared, folder=folder)


def _bytes_of(path: Path) -> np.ndarray:
    try:
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; prepare the data again") from None


def _require_whole(folder: Path, prepared: Corpus | ImageCorpus) -> None:
    """Raises DataError if a copy is damaged, and makes the next try copy it again."""
    try:
        _digest_of(folder, prepared, hashes=True)
    except DataError:
        (folder / MANIFEST).unlink(missing_ok=True)
        raise


def _is_there(folder: Path, prepared: Corpus | ImageCorpus) -> bool:
    """Whether the folder holds the same, finished."""
    try:
        return _digest_of(folder, prepared, hashes=False) == prepared.digest
    except DataError:
        return False


def _digest_of(folder: Path, like: Corpus | ImageCorpus, *, hashes: bool) -> str:
    """The digest of what a folder holds, text or images as `like`.

    Raises DataError where that is not finished, or a file has another size, or another hash if `hashes`.
    """
    if isinstance(like, ImageCorpus):
        return open_images(folder, hashes=hashes).digest
    return finished_manifest(folder, hashes=hashes)[1]
