"""Reads the documents of one file as a stream, so that the file may be larger than memory."""

import csv
import io
import json
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from operators.base.errors import DataError
from proxy_train.text.formats import BEGINNING, COMPRESSIONS, Kind, kind_of, not_text, pyarrow, unfetched

_ROWS = 256  # rows of a .parquet file in memory at a time: documents may be long
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Windows programs write it; it is not text
_BLANK = b" \t\r\n"  # the white space of JSON


def read_file(path: Path, text_column: str) -> Iterator[str]:
    """The documents of a file as they stand in it, blank ones included; none where the file is empty.

    .txt: the file is one document.
    .jsonl: each line is an object with a document; blank lines are skipped.
    .json: such lines, one object, or an array of objects, which is held in memory.
    .csv, .tsv: the first line has the column names; each row is a document.
    .parquet, .arrow (as the library `datasets` saves them): each row is a document.

    path: the file; its ending names the format and the compression, see `formats`.
    text_column: the key or column of the documents.

    Raises DataError for a file that is unreadable, damaged or not text, with the line or row (both from 1).
    """
    kind = kind_of(path.name)
    if kind is None:
        raise DataError(f"{path}: files with this ending are not read")
    with readable(path):
        if path.stat().st_size == 0:
            return
        if kind.format in ("parquet", "arrow"):
            with seekable(path, kind) as file:
                yield from (_parquet if kind.format == "parquet" else _arrow)(path, file, text_column)
            return
        with opened(path, kind) as stream:
            if wrong := not_text(stream.peek(BEGINNING)[:BEGINNING]):
                raise DataError(f"{path}: is {wrong}")
            if stream.peek(3)[:3] == _BYTE_ORDER_MARK:
                stream.read(3)
            if kind.format == "text":
                yield from _whole(path, stream)
            elif kind.format == "lines":
                yield from _lines(path, stream, text_column)
            elif kind.format == "json":
                yield from _json(path, stream, text_column)
            else:
                yield from _separated(path, stream, text_column, "\t" if kind.format == "tsv" else ",")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what a damaged or unreadable file raises into a DataError that names the file."""
    # A damaged file raises EOFError, an error of zlib or lzma, or an OSError without strerror.
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def opened(path: Path, kind: Kind) -> io.BufferedReader:
    """The file as a stream of uncompressed bytes."""
    if kind.compression:
        return io.BufferedReader(COMPRESSIONS[kind.compression](path))
    return path.open("rb")


@contextmanager
def seekable(path: Path, kind: Kind) -> Iterator[BinaryIO]:
    """The file, uncompressed and open at its start. It can be sought in, as Parquet is read from its end."""
    with opened(path, kind) as stream:
        if pointer := unfetched(stream.peek(BEGINNING)[:BEGINNING]):
            raise DataError(f"{path}: is {pointer}")
        if not kind.compression:
            yield stream
            return
        with tempfile.TemporaryFile() as whole:
            shutil.copyfileobj(stream, whole)
            whole.seek(0)
            yield whole


def _whole(path: Path, stream: BinaryIO) -> Iterator[str]:
    # The file is read as bytes: text mode would turn \r\n into \n, and bits per byte counts the file's bytes.
    raw = stream.read()
    if (junk := raw.find(0)) >= 0:
        raise DataError(f"{path}: expected UTF-8 text, got byte 0x00 at offset {junk}")
    yield decoded(raw, str(path))


def _lines(path: Path, stream: Iterable[bytes], text_column: str, first: int = 1) -> Iterator[str]:
    # Lines are split as bytes, which end at \n alone: JSON strings may hold U+2028
    # and other line ends unescaped.
    for number, raw in enumerate(stream, start=first):
        if not raw.isspace():
            where = f"{path} line {number}"
            line = decoded(raw, where)
            yield _document(_parsed(line, where, text_column), line.strip(), where, text_column)


def _json(path: Path, stream: io.BufferedReader, text_column: str) -> Iterator[str]:
    """Documents of an array of objects, of one object, or of an object a line.

    The beginning of the file decides which of them it is, as in the library `datasets`.
    """
    first_line, blank_lines = stream.readline(), 0
    while first_line and first_line.isspace():
        first_line, blank_lines = stream.readline(), blank_lines + 1
    if not first_line:
        return
    if not first_line.lstrip(_BLANK).startswith(b"["):
        try:
            json.loads(first_line)
        except (ValueError, RecursionError):  # one object over several lines, or a damaged file
            pass
        else:
            number = blank_lines + 1
            yield from _lines(path, [first_line], text_column, number)
            yield from _lines(path, stream, text_column, number + 1)
            return
    content = _parsed(decoded(first_line + stream.read(), str(path)), str(path), text_column)
    if not isinstance(content, list):
        yield _document(content, json.dumps(content), str(path), text_column)
        return
    for number, record in enumerate(content, start=1):
        where = f"{path} item {number}"
        if isinstance(record, str) and text_column == "text":  # the name that datasets gives bare strings
            yield _encodable(record, where, text_column)
        else:
            yield _document(record, json.dumps(record), where, text_column)


def _separated(path: Path, stream: Iterable[bytes], text_column: str, separator: str) -> Iterator[str]:
    # By default the module refuses fields beyond 131,072 characters; documents may be longer.
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(_text_lines(path, stream), delimiter=separator, strict=True)
    columns: list[str] = []
    try:
        for row in rows:
            where = f"{path} line {rows.line_num}"
            if not row:
                continue
            if not columns:
                columns = row
                _require_column(path, text_column, columns)
                place = columns.index(text_column)
                continue
            if len(row) != len(columns):
                raise DataError(
                    f"{where}: expected {len(columns)} fields as in the first line, got {len(row)}; a field "
                    'that holds the separator or a line end stands in "quotes"'
                )
            yield row[place]
    except csv.Error as error:
        raise DataError(f"{path} line {rows.line_num}: not {path.suffix[1:]}: {error}") from None


def _text_lines(path: Path, stream: Iterable[bytes]) -> Iterator[str]:
    for number, raw in enumerate(stream, start=1):
        if (junk := raw.find(0)) >= 0:
            raise DataError(f"{path} line {number}: expected UTF-8 text, got byte 0x00 at offset {junk}")
        yield decoded(raw, f"{path} line {number}")


def _parsed(raw: str, where: str, text_column: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if (times := [key for key, _ in pairs].count(text_column)) > 1:
            raise DataError(f'{where}: expected "{text_column}" once, got it {times} times')
        return dict(pairs)

    # Python would take the last of them. Looking into every object costs time: only where the name is there
    # twice.
    hook = once if raw.count(f'"{text_column}"') > 1 else None
    try:
        return json.loads(raw, object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from None


def _document(record: Any, raw: str, where: str, text_column: str) -> str:
    document = record.get(text_column) if isinstance(record, dict) else None
    if not isinstance(document, str):
        raise DataError(f'{where}: expected an object whose "{text_column}" is a string, got {raw:.60}')
    return _encodable(document, where, text_column)


def _encodable(document: str, where: str, text_column: str) -> str:
    try:
        document.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f'{where}: "{text_column}" holds an unpaired surrogate at character {error.start}'
        ) from None
    return document


def decoded(raw: bytes, where: str) -> str:
    """Text of UTF-8; `where` is its place, for messages. Raises DataError."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: expected UTF-8 text, got byte 0x{raw[error.start]:02x} at offset {error.start}"
        ) from None


def _parquet(path: Path, file: BinaryIO, text_column: str) -> Iterator[str]:
    invalid = pyarrow("pyarrow", path).ArrowException
    try:
        with pyarrow("pyarrow.parquet", path).ParquetFile(file) as table:
            _require_column(path, text_column, table.schema_arrow.names)
            yield from _rows(path, text_column, table.iter_batches(batch_size=_ROWS, columns=[text_column]))
    except invalid as error:
        raise DataError(f"{path}: not a whole .parquet file: {error}") from None


def _arrow(path: Path, file: BinaryIO, text_column: str) -> Iterator[str]:
    arrow, ipc = pyarrow("pyarrow", path), pyarrow("pyarrow.ipc", path)
    try:
        is_file = (
            file.read(6) == b"ARROW1"
        )  # Arrow has two layouts, files and streams; `datasets` writes streams
        file.seek(0)
        if is_file:
            with ipc.open_file(file) as table:
                _require_column(path, text_column, table.schema.names)
                batches = (table.get_batch(number) for number in range(table.num_record_batches))
                yield from _rows(path, text_column, batches)
        else:
            with ipc.open_stream(file) as stream:
                _require_column(path, text_column, stream.schema.names)
                yield from _rows(path, text_column, stream)
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
            f'{path}: expected a column "{text_column}", got {", ".join(columns) or "none"}; '
            "data.text_column names another"
        )
    if (times := columns.count(text_column)) > 1:
        raise DataError(f'{path}: expected one column "{text_column}", got {times} of that name')
