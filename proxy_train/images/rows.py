"""Reads rows of an image with a question and an answer, or with text, one after the other."""

import importlib.util
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operators.base.errors import DataError, in_words
from proxy_train.images.image_settings import EASY_VQA, ImageSettings
from proxy_train.text.documents import list_source
from proxy_train.text.formats import kind_of, pyarrow
from proxy_train.text.readers import decoded, opened, readable, seekable

_ROWS = 64  # rows of a .parquet file in memory at a time: images may be large
_READ = ("lines", "json", "parquet", "arrow")
MOST_BYTES = 2**28  # of an image's file: 256 MiB; no picture that may be decoded is larger


@dataclass(frozen=True)
class Row:
    """An example as it stands in a source.

    where: file and line or row, for messages.
    image: the path of its file, or the file's content.
    question: "" where there is none.
    answer: what the model shall write.
    """

    where: str
    image: Path | bytes
    question: str
    answer: str

    def content(self) -> bytes:
        """The content of the image's file. Raises DataError."""
        if isinstance(self.image, bytes):
            return self.image
        try:
            if (size := self.image.stat().st_size) > MOST_BYTES:
                raise DataError(f"{self.name}: expected at most {MOST_BYTES:,} bytes, got {size:,}")
            return self.image.read_bytes()
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read: {error.strerror}") from None

    @property
    def name(self) -> str:
        """The image's place, for messages."""
        return (
            f"{self.where}: image" if isinstance(self.image, bytes) else f"{self.where}: image {self.image}"
        )


def read_rows(settings: ImageSettings) -> Iterator[Row]:
    """All rows of the sources, in order; without the ones of validation and test files in folders.

    Raises DataError for a file that cannot be read, a row without image or answer, and no row at all.
    """
    empty = True
    for entry in settings.sources:
        for row in _easy_vqa() if entry == EASY_VQA else _entry(entry, settings):
            empty = False
            yield row
    if empty:
        raise DataError(f"source {', '.join(settings.sources)}: expected images with text, got none")


def _entry(entry: str, settings: ImageSettings) -> Iterator[Row]:
    listing = list_source(entry)
    for path in listing.files:
        kind = kind_of(path.name)
        if kind is None or kind.format not in _READ:
            raise DataError(
                f"{path}: expected images in a .parquet or .arrow file, or their names in a .jsonl file, "
                f"got {path.suffix or 'no extension'}"
            )
        with readable(path):
            read = _tabular if kind.format in ("parquet", "arrow") else _objects
            for where, cells in read(path, settings):
                yield _row(path, where, cells, settings)


def _objects(path: Path, settings: ImageSettings) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a .jsonl file, or of the array in a .json file, with their places."""
    kind = kind_of(path.name)
    assert kind is not None  # noqa: S101  for the type checker: the caller knows
    with opened(path, kind) as stream:
        if kind.format == "json":
            content = _parsed(decoded(stream.read(), str(path)), str(path))
            items: Iterable[tuple[str, Any]] = (
                (f"{path} item {number}", item)
                for number, item in enumerate(content if isinstance(content, list) else [content], start=1)
            )
        else:
            items = (
                (
                    f"{path} line {number}",
                    _parsed(decoded(raw, f"{path} line {number}"), f"{path} line {number}"),
                )
                for number, raw in enumerate(stream, start=1)
                if not raw.isspace()
            )
        for where, item in items:
            if not isinstance(item, dict):
                raise DataError(f"{where}: expected an object, got {in_words(item)}")
            yield where, item


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from None


def _tabular(path: Path, settings: ImageSettings) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a .parquet or .arrow file, with their places."""
    kind, arrow = kind_of(path.name), pyarrow("pyarrow", path)
    assert kind is not None  # noqa: S101  for the type checker: the caller knows
    wanted = (
        settings.image_column,
        settings.question_column,
        settings.answer_column,
        settings.text_column,
    )
    try:
        with seekable(path, kind) as file:
            if kind.format == "parquet":
                table = pyarrow("pyarrow.parquet", path).ParquetFile(file)
                there = [name for name in wanted if name in table.schema_arrow.names]
                _require_image(path, settings, table.schema_arrow.names)
                batches = table.iter_batches(batch_size=_ROWS, columns=there)
            else:
                batches = _arrow_batches(path, file)
            number = 0
            for batch in batches:
                _require_image(path, settings, batch.schema.names)
                there = [name for name in wanted if name in batch.schema.names]
                for cells in batch.select(there).to_pylist():
                    number += 1
                    yield f"{path} row {number}", cells
    except arrow.ArrowException as error:
        raise DataError(f"{path}: not a whole {path.suffix} file: {error}") from None


def _arrow_batches(path: Path, file: Any) -> Iterator[Any]:
    ipc = pyarrow("pyarrow.ipc", path)
    is_file = file.read(6) == b"ARROW1"  # Arrow has two layouts, files and streams; `datasets` writes streams
    file.seek(0)
    table = ipc.open_file(file) if is_file else ipc.open_stream(file)
    if is_file:
        yield from (table.get_batch(number) for number in range(table.num_record_batches))
    else:
        yield from table


def _require_image(path: Path, settings: ImageSettings, columns: list[str]) -> None:
    if settings.image_column not in columns:
        raise DataError(
            f'{path}: expected a column "{settings.image_column}" of images, got {", ".join(columns)}; '
            "image_column names another"
        )


def _row(path: Path, where: str, cells: dict[str, Any], settings: ImageSettings) -> Row:
    """Raises DataError for a row without image or answer."""
    image = _image(path, where, cells.get(settings.image_column), settings.image_column)
    question = _text(where, settings.question_column, cells.get(settings.question_column))
    answer = _text(where, settings.answer_column, cells.get(settings.answer_column))
    if answer:
        return Row(where, image, question, answer)
    if question:
        raise DataError(
            f'{where}: a question without an answer: expected one in "{settings.answer_column}", '
            f"the question is {in_words(question)}"
        )
    text = _text(where, settings.text_column, cells.get(settings.text_column))
    if not text:
        raise DataError(
            f'{where}: an image without text: expected "{settings.question_column}" and '
            f'"{settings.answer_column}", or "{settings.text_column}", got {", ".join(cells)}'
        )
    return Row(where, image, "", text)


def _text(where: str, column: str, value: Any) -> str:
    """The text of a cell; of a list the first. "" where there is none. Raises DataError."""
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f'{where}: expected text in "{column}", got {in_words(value)}')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f'{where}: "{column}" holds an unpaired surrogate at character {error.start}'
        ) from None
    return value.strip()


def _image(path: Path, where: str, value: Any, column: str) -> Path | bytes:
    """The content or the path of an image: bytes, a name, or a mapping of both as `datasets` has it."""
    name = value
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes):
            return bytes(value["bytes"])
        name = value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(name, str) or not name:
        raise DataError(f'{where}: expected an image in "{column}", got {in_words(value)}')
    folder = path.parent.absolute()
    file = folder / name
    # Names come from the file: a row shall not reach other parts of the disk.
    if ".." in file.parts or not file.is_relative_to(folder):
        raise DataError(f"{where}: image {name!r:.80}: expected a file in {folder}")
    if "\0" in name or not file.is_file():
        raise DataError(f"{where}: image {name!r:.80}: no such file in {folder}")
    return file


def _easy_vqa() -> Iterator[Row]:
    """The training questions of the package easy-vqa (MIT), found without importing it."""
    spec = importlib.util.find_spec("easy_vqa")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location, "data", "train")
        file = folder / "questions.json"
        if file.is_file():
            with readable(file):
                questions = _parsed(file.read_text(encoding="utf-8"), str(file))
            for number, (question, answer, image) in enumerate(questions, start=1):
                yield Row(f"{file} item {number}", folder / "images" / f"{image}.png", question, answer)
            return
    raise DataError(
        "source easy-vqa: the package easy-vqa is not installed; "
        "`pip install 'frontrunner[vision]'` installs it"
    )
