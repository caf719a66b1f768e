"""Records which files of a source are read and which are not, for the manifest and for people."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from operators.base.value import Value

NAMED = 10  # files of each kind that are named; the others are counted, so that a message stays readable


class Names(Value):
    """How many files there are of a kind, and the names of the first NAMED."""

    count: int
    first: tuple[str, ...]


class SourceRecord(Value):
    """Which files of a source are read.

    files: how many files of each ending.
    not_read: the files that are not read, by reason; a folder that is not searched counts as one.
    empty_files: files without text; complete only after all text was read.
    repeated_files: files that several entries of the source name; they are read as often.
    blank_documents: documents of white space alone, which are skipped; counted while the text is read.
    """

    files: Mapping[str, int]
    not_read: Mapping[str, Names] = {}
    empty_files: Names = Names(count=0, first=())
    repeated_files: Names = Names(count=0, first=())
    blank_documents: int = 0

    def after_reading(self, empty_files: Sequence[str], blank_documents: int) -> "SourceRecord":
        """The same record with what only reading shows.

        empty_files: names of files that have bytes but no text.
        blank_documents: documents of white space alone.
        """
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
    """One line: what is not read, why, and the first names; "" where everything is read."""
    return "; ".join(f"{files.count:,} {why} ({shown(files)})" for why, files in not_read.items())


def shown(files: Names) -> str:
    """The names, and how many more there are."""
    more = files.count - len(files.first)
    return ", ".join(files.first) + (f" and {more:,} more" if more else "")


def counted(endings: Iterable[str]) -> Mapping[str, int]:
    """How often each ending occurs, in alphabetical order."""
    return dict(sorted(Counter(endings).items()))
