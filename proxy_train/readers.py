"""One file -> its documents, read as a stream, so that a file may be larger than memory."""

import gzip
import importlib
import io
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from operators.errors import DataError

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst", ".parquet")
_ROWS = 256  # of a .parquet file, held at a time


def read_file(path: Path, text_column: str) -> Iterator[str]:
    """The documents of a file, those of white space alone passed over.

    A .txt file is one document. A .jsonl file, perhaps compressed (.gz, .xz, .zst), has one a line, under the key `text_column`; blank
    lines are passed over. A .parquet file, and an .arrow file as the library `datasets` saves them, has one a row, in the column
    `text_column`. Raises DataError for what is unreadable, damaged, not text or empty, with the line or row (both from 1).
    """
    read = {".txt": _whole, ".parquet": _parquet, ".arrow": _arrow}.get(path.suffix, _lines)
    empty = True
    with _readable(path):
        for document in read(path, text_column):
            if document and not document.isspace():
                empty = False
                yield document
    if empty:
        raise DataError(f"{path}: expected text, the file is empty")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
    ) as error:  # the last three and OSErrors without strerror: a damaged file
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _whole(path: Path, text_column: str) -> Iterator[str]:
    # Bytes, because text mode would turn \r\n into \n, and bits per byte counts the bytes of the file.
    raw = path.read_bytes()
    if (junk := raw.find(0)) >= 0:
        raise DataError(f"{path}: expected UTF-8 text, got byte 0x00 at offset {junk}")
    yield _decoded(raw, str(path))


def _lines(path: Path, text_column: str) -> Iterator[str]:
    with _decompressed(path) as file:
        for number, raw in enumerate(
            file, start=1
        ):  # lines of bytes end at \n alone: JSON strings may hold U+2028 and its like as they are
            if not raw.isspace():
                yield _document(_decoded(raw, where := f"{path} line {number}"), where, text_column)


def _document(line: str, where: str, text_column: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from None
    document = record.get(text_column) if isinstance(record, dict) else None
    if not isinstance(document, str):
        raise DataError(
            f'{where}: expected an object whose "{text_column}" is a string, got {line.strip():.60}'
        )
    try:
        document.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f'{where}: "{text_column}" holds an unpaired surrogate at character {error.start}'
        ) from None
    return document


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: expected UTF-8 text, got byte 0x{raw[error.start]:02x} at offset {error.start}"
        ) from None


def _decompressed(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path))
    if path.suffix == ".xz":
        return io.BufferedReader(lzma.open(path))
    if path.suffix == ".zst":
        return io.BufferedReader(_pyarrow("pyarrow", path).input_stream(str(path), compression="zstd"))
    return path.open("rb")


def _parquet(path: Path, text_column: str) -> Iterator[str]:
    invalid = _pyarrow("pyarrow", path).ArrowException
    try:
        with _pyarrow("pyarrow.parquet", path).ParquetFile(path) as file:
            _require_column(path, text_column, file.schema_arrow.names)
            yield from _rows(path, text_column, file.iter_batches(batch_size=_ROWS, columns=[text_column]))
    except invalid as error:
        raise DataError(f"{path}: not a whole .parquet file: {error}") from None


def _arrow(path: Path, text_column: str) -> Iterator[str]:
    arrow, streams = _pyarrow("pyarrow", path), _pyarrow("pyarrow.ipc", path)
    try:
        with arrow.memory_map(str(path)) as file, streams.open_stream(file) as batches:
            _require_column(path, text_column, batches.schema.names)
            yield from _rows(path, text_column, batches)
    except arrow.ArrowException as error:
        raise DataError(f"{path}: not a whole .arrow file: {error}") from None


def _rows(path: Path, text_column: str, batches: Iterable[Any]) -> Iterator[str]:
    before = 0
    for batch in batches:
        for row, cell in enumerate(batch.column(text_column), start=before + 1):
            try:
                value = cell.as_py()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path} row {row}: expected UTF-8 text, got a bad byte at offset {error.start}"
                ) from None
            if not isinstance(value, str):
                raise DataError(
                    f'{path} row {row}: expected a string in the column "{text_column}", got {value!r:.60}'
                )
            yield value
        before += batch.num_rows


def _require_column(path: Path, text_column: str, columns: list[str]) -> None:
    if text_column not in columns:
        raise DataError(
            f'{path}: expected a column "{text_column}", got {", ".join(columns) or "none"}; data.text_column names another'
        )


def _pyarrow(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(
            f"{path}: {path.suffix} files need pyarrow; `pip install 'frontrunner[data]'` installs it"
        ) from None
