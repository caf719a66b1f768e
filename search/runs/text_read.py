"""What of its text a run reads, in the terminal."""

from rich.console import Console

from proxy_train.text import source_record as names
from proxy_train.text.source_record import SourceRecord


def print_source(console: Console, record: "SourceRecord") -> None:
    """Says which files are read, and on a second line which are not: nothing of a source is left out in silence."""

    console.print(f"reads {names.reads(record)}", soft_wrap=True, markup=False)
    if record.not_read:
        console.print(f"does not read {names.leaves_out(record.not_read)}", soft_wrap=True, markup=False)
    if record.empty_files.count:
        console.print(f"empty: {names.shown(record.empty_files)}", soft_wrap=True, markup=False)
    if record.repeated_files.count:
        more_than_once = names.shown(record.repeated_files)
        console.print(
            f"reads more than once, as several sources name it: {more_than_once}",
            soft_wrap=True,
            markup=False,
        )
