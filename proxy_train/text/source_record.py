"""What of a source is read and what is not: counts and names, for the manifest and for people."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from operators.base.value import Value

NAMED = 10  # files that are named of each kind; the others are counted


class Names(Value):
    """How many files there are of a kind, and the first of them by name."""

    count: int
    first: tuple[str, ...]


class SourceRecord(Value):
    """What of a source is read.

    files: how many of each ending. repeated_files: those that several entries of the source name; they are read as often.
    not_read: why not -> which; a folder that is not entered counts as one. blank_documents: documents of white space alone, which are
    passed over. Empty files and blank documents are complete only after all text was read.
    """

    files: Mapping[str, int]
    not_read: Mapping[str, Names] = {}
    empty_files: Names = Names(count=0, first=())
    repeated_files: Names = Names(count=0, first=())
    blank_documents: int = 0

    def after_reading(self, empty_files: Sequence[str], blank_documents: int) -> "SourceRecord":
        """The same with what only reading tells: files that hold no text though they have bytes, and documents without any."""
        first = (*self.empty_files.first, *sorted(map(printable, empty_files)))[:NAMED]
        empty = Names(count=self.empty_files.count + len(empty_files), first=first)
        return self.model_copy(update={"empty_files": empty, "blank_documents": blank_documents})


def names(paths: Iterable[str]) -> Names:
    listed = sorted(printable(path) for path in paths)
    return Names(count=len(listed), first=tuple(listed[:NAMED]))


def printable(path: str) -> str:
    """A path as one line of text: file names are bytes, not always of UTF-8, and may hold line ends."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def reads(record: SourceRecord) -> str:
    """One line: how many files of which ending are read."""
    total = sum(record.files.values())
    endings = ", ".join(f"{count:,} {ending}" for ending, count in sorted(record.files.items()))
    return f"{total:,} file{'s' if total != 1 else ''} ({endings})"


def leaves_out(not_read: Mapping[str, Names]) -> str:
    """One line: what is not read, why, and the first names; empty where everything is."""
    return "; ".join(f"{found.count:,} {why} ({shown(found)})" for why, found in not_read.items())


def shown(found: Names) -> str:
    more = found.count - len(found.first)
    return ", ".join(found.first) + (f" and {more:,} more" if more else "")


def counted(endings: Iterable[str]) -> Mapping[str, int]:
    return dict(sorted(Counter(endings).items()))
