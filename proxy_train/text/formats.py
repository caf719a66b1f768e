"""The endings of files that can be read: one table of formats, one of compressions, in every combination."""

import bz2
import gzip
import importlib
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from operators.base.errors import DataError

# Ending -> the name of its format for `readers`. Capitals and small letters are the same.
FORMATS = {
    ".txt": "text",
    ".text": "text",
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".arrow": "arrow",
    ".parquet": "parquet",
}

_CHUNK = 2**16  # bytes of a compressed file that are read at a time

# An archive holds files of its own. Its name does not show which of them are text, and of which split.
ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".zip", ".7z", ".rar")


class Kind(NamedTuple):
    """How a file is read.

    ending: of its name, compression included, in small letters.
    format: see FORMATS.
    compression: the ending of the compression, or "".
    """

    ending: str
    format: str
    compression: str


def kind_of(name: str) -> Kind | None:
    """How a file of this name is read; None where it is not."""
    stem, compression = uncompressed(name.lower())
    for ending, form in FORMATS.items():
        if stem.endswith(ending) and stem != ending:
            return Kind(ending + compression, form, compression)
    return None


def uncompressed(name: str) -> tuple[str, str]:
    """The name without the ending of a compression, and that ending ("" where there is none)."""
    for ending in COMPRESSIONS:
        if name.lower().endswith(ending):
            return name[: -len(ending)], ending
    return name, ""


def is_archive(name: str) -> bool:
    return uncompressed(name.lower())[0].endswith(ARCHIVES)


def pyarrow(module: str, path: Path) -> Any:
    """A module of pyarrow. Raises DataError where it is not installed; `path` is the file that needs it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        ending = kind.ending if (kind := kind_of(path.name)) else path.suffix
        raise DataError(
            f"{path}: {ending} files need pyarrow; `pip install 'frontrunner[data]'` installs it"
        ) from None


def _by_pyarrow(codec: str) -> Callable[[Path], BinaryIO]:
    def opened(path: Path) -> BinaryIO:
        stream: BinaryIO = pyarrow("pyarrow", path).input_stream(str(path), compression=codec)
        return stream

    return opened


class _Streams(io.RawIOBase):
    """Reads the compressed streams in a file as one; bzip2 and xz write several if they use several threads.

    Python's own `bz2.open` and `lzma.open` silently take a damaged second stream for the end of the file.
    """

    def __init__(self, path: Path, new: Callable[[], Any]) -> None:
        self._file, self._new, self._stream = path.open("rb"), new, new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            raw = b""
            if self._stream.eof:
                raw = self._stream.unused_data.lstrip(b"\0")  # xz may write zeros between streams
                while not raw:
                    if not (read := self._file.read(_CHUNK)):
                        return 0
                    raw = read.lstrip(b"\0")
                self._stream = self._new()
            elif self._stream.needs_input and not (raw := self._file.read(_CHUNK)):
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            if data := self._stream.decompress(raw, len(buffer)):
                buffer[: len(data)] = data
                return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


# Ending -> a function that opens such a file as uncompressed bytes. All of them read several frames as one.
COMPRESSIONS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": lambda path: _Streams(path, bz2.BZ2Decompressor),
    ".xz": lambda path: _Streams(path, lzma.LZMADecompressor),
    ".zst": _by_pyarrow("zstd"),
    ".lz4": _by_pyarrow("lz4"),
}

# The first bytes of files that are not text in UTF-8, although their names say so.
_GIT_LFS = b"version https://git-lfs.github.com/spec/"
_BEGINNINGS = (
    (b"\xff\xfe\x00\x00", "UTF-32 text: expected UTF-8; `iconv -f UTF-32 -t UTF-8` makes it"),
    (b"\x00\x00\xfe\xff", "UTF-32 text: expected UTF-8; `iconv -f UTF-32 -t UTF-8` makes it"),
    (b"\xff\xfe", "UTF-16 text: expected UTF-8; `iconv -f UTF-16 -t UTF-8` makes it"),
    (b"\xfe\xff", "UTF-16 text: expected UTF-8; `iconv -f UTF-16 -t UTF-8` makes it"),
    (b"\x1f\x8b", "compressed by gzip: expected a name that ends in .gz"),
    (b"BZh91AY&SY", "compressed by bzip2: expected a name that ends in .bz2"),
    (b"\xfd7zXZ\x00", "compressed by xz: expected a name that ends in .xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: expected a name that ends in .zst"),
    (b"\x04\x22\x4d\x18", "compressed by lz4: expected a name that ends in .lz4"),
    (b"PK\x03\x04", "a zip archive: expected the files in it, unpacked"),
    (b"PAR1", "a Parquet file: expected a name that ends in .parquet"),
    (b"ARROW1", "an Arrow file: expected a name that ends in .arrow"),
)
BEGINNING = max(len(_GIT_LFS), *(len(magic) for magic, _ in _BEGINNINGS))  # bytes that `not_text` needs


def unfetched(beginning: bytes) -> str | None:
    """What a file is if git has left it as a pointer to the real one; None where it is no pointer."""
    if beginning.startswith(_GIT_LFS):
        return "a Git LFS pointer, not the file itself: `git lfs pull` fetches it"
    return None


def not_text(beginning: bytes) -> str | None:
    """What a file with this beginning is, if it cannot be text in UTF-8; None where it can."""
    if pointer := unfetched(beginning):
        return pointer
    return next((meaning for magic, meaning in _BEGINNINGS if beginning.startswith(magic)), None)
