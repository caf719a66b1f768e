"""Which files of its text a run reads, in the terminal."""

from rich.console import Console

from proxy_train.text import source_record as names
from proxy_train.text.source_record import SourceRecord


def print_source(console: Console, record: SourceRecord) -> None:
    """Says which files are read, and on lines of their own which are not: nothing is left out in silence."""
    lines = [f"reads {names.reads(record)}"]
    if record.not_read:
        lines.append(f"does not read {names.leaves_out(record.not_read)}")
    if record.empty_files.count:
        lines.append(f"empty: {names.shown(record.empty_files)}")
    if record.repeated_files.count:
        repeated = names.shown(record.repeated_files)
        lines.append(f"reads more than once, as several sources name it: {repeated}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
