"""Token ids on disk: files of equal length (shards), memory-mapped and read as one sequence."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from operators.base.errors import DataError
from operators.base.files import whole_file
from operators.base.value import Value

# Tokens in each shard but the last, 128 or 256 MiB: a kill loses the work on one shard,
# and no folder has many files.
SHARD_TOKENS = 2**26


class FileRecord(Value):
    """The size and SHA-256 (hex) that a file must have to count as whole."""

    bytes: int
    sha256: str


class ShardRecord(FileRecord):
    """A shard, and where its text ends.

    document: the number (from 0) of the source's document that its last token is from.
    document_tokens: how many tokens of that document stand in this shard and before.
    """

    document: int
    document_tokens: int


@dataclass(frozen=True)
class Tokens:
    """Shards of equal length, the last one perhaps shorter, as one sequence of token ids."""

    shards: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """The `length` ids from each of `starts` [B] on: [B, length]. A window may lie in several shards."""
        each = len(self.shards[0])
        rows = np.empty((len(starts), length), dtype=self.shards[0].dtype)
        for row, start in zip(rows, starts.tolist(), strict=True):
            done = 0
            while done < length:
                shard, place = divmod(start + done, each)
                part = self.shards[shard][place : place + length - done]
                row[done : done + len(part)] = part
                done += len(part)
        return rows


def shard_name(number: int) -> str:
    return f"train-{number:05d}.bin"


def open_tokens(path: Path, dtype: str, count: int) -> np.ndarray:
    """The ids of one file: [count], read-only. Raises DataError for a file of another size."""
    on_disk = np.dtype(dtype).newbyteorder("<")
    try:
        if (size := path.stat().st_size) != count * on_disk.itemsize:
            raise DataError(
                f"{path}: expected {count * on_disk.itemsize} bytes, got {size}; "
                "prepare the data again on this machine"
            )
        return np.memmap(path, dtype=on_disk, mode="r", shape=(count,))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be opened ({error}); prepare the data again on this machine"
        ) from None


def write_shards(
    folder: Path, encoded: Iterator[tuple[int, int, np.ndarray]], *, number: int
) -> Iterator[ShardRecord]:
    """Writes shards, and yields the record of each when its file is in place, whole.

    folder: of the shards.
    encoded: pieces of the text in order: (number of a document, how many of its tokens come before, its ids
        from there on).
    number: of the first shard to write.
    """
    rest = next(encoded, None)
    while rest is not None:
        sha256, room = hashlib.sha256(), SHARD_TOKENS
        with whole_file(folder / shard_name(number)) as partial, partial.open("wb") as file:
            while rest is not None and room:
                document, before, ids = rest
                taken, left = ids[:room], ids[room:]
                raw = taken.tobytes()
                file.write(raw)
                sha256.update(raw)
                room -= len(taken)
                before += len(taken)
                rest = (document, before, left) if len(left) else next(encoded, None)
            size = file.tell()
        yield ShardRecord(bytes=size, sha256=sha256.hexdigest(), document=document, document_tokens=before)
        number += 1


def record(path: Path) -> FileRecord:
    """The size and SHA-256 of a file as it is. Raises OSError."""
    with path.open("rb") as file:
        return FileRecord(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def damage(path: Path, expected: FileRecord, *, hashes: bool = True) -> str | None:
    """What is wrong with a file, in one line; None where it is whole.

    hashes: whether to compare its SHA-256, beside its size.
    """
    try:
        if (size := path.stat().st_size) != expected.bytes:
            return f"{path}: expected {expected.bytes} bytes, got {size}"
        if hashes and (sha256 := record(path).sha256) != expected.sha256:
            return f"{path}: expected the SHA-256 {expected.sha256[:12]}…, got {sha256[:12]}…"
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}"
    return None
