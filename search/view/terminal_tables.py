"""Tables for a terminal. Nothing in one is ever cut: words wrap, columns that may be left out are named, and else rows are stacked.

Where standard output is no terminal there is no width to keep to: every row is one line.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

_GAP = 2  # cells between columns
_READABLE = 16  # A column of words is not made narrower than this, unless its words are all shorter.
_LONGEST_WORD = 40  # A longer word, as a path in a reason, is broken over lines.
_PIECE = re.compile(
    r" *(?:\[[^\]]*\]|[@./]?[^@./ ]+)"
)  # A header may be broken at spaces, before a unit, and before `@`, `.` and `/`.
_UNLIMITED = 1_000_000  # of cells: more than any row has


@dataclass(frozen=True)
class Sheet:
    """A table that lays itself out for the console that shows it.

    names: of the columns. rows: cells, one for each column. words: names of columns that stand to the left and may wrap between words;
    all others are figures, stand to the right and stay whole. optional: names of columns to leave out where the width is too small for all,
    the last one first. notes: lines below the table.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[str] = frozenset()
    optional: tuple[str, ...] = ()
    title: str = ""
    notes: tuple[str, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = _UNLIMITED if options.overflow == "ignore" else options.max_width  # `show` asks for that
        title = [Text(self.title, style="bold")] if self.title else []
        for part in (*title, *self._body(width), *map(Text, self.notes)):
            yield from console.render(part, options.update(width=width, no_wrap=False, overflow="fold"))

    def _body(self, width: int) -> Iterable[RenderableType]:
        for dropped in range(len(self.optional) + 1):
            left_out = self.optional[len(self.optional) - dropped :]
            shown = [number for number, name in enumerate(self.names) if name not in left_out]
            for headers_wrap in (False, True):
                widths = self._widths(shown, width, headers_wrap=headers_wrap)
                if widths is not None:
                    yield self._table(shown, widths)
                    if left_out:
                        yield Text(
                            f"not shown in {width} columns: {', '.join(left_out)}; a wider terminal or a pipe shows them"
                        )
                    return
        yield from self._stacked()

    def _widths(self, shown: Sequence[int], width: int, *, headers_wrap: bool) -> list[int] | None:
        """Of the columns with these numbers, in cells; None where they do not fit into `width`."""
        most, least = [], []
        for number in shown:
            name, cells = self.names[number], [row[number] for row in self.rows]
            header = max(map(cell_len, _pieces(name))) if headers_wrap else cell_len(name)
            whole = max(map(cell_len, cells), default=0)
            most.append(max(header, whole))
            if name in self.words:
                word = max((cell_len(word) for cell in cells for word in cell.split()), default=0)
                whole = min(whole, max(_READABLE, min(word, _LONGEST_WORD)))
            least.append(max(header, whole, 1))
        room = width - sum(least) - _GAP * (len(shown) - 1)
        if room < 0:
            return None
        widths = []
        for narrow, wide in zip(least, most, strict=True):
            more = min(room, max(0, wide - narrow))
            widths.append(narrow + more)
            room -= more
        return widths

    def _table(self, shown: Sequence[int], widths: Sequence[int]) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD,
            header_style="bold",
            show_edge=False,
            pad_edge=False,
            padding=(0, _GAP - 1, 0, 0),  # the box adds one
        )
        for number, width in zip(shown, widths, strict=True):
            name = self.names[number]
            table.add_column(
                Text(_wrapped(name, width)),
                justify="left" if name in self.words else "right",
                width=width,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(Text(row[number]) for number in shown))
        return table

    def _stacked(self) -> Iterable[RenderableType]:
        """A line for each cell, a paragraph for each row."""
        margin = max(map(cell_len, self.names))
        for number, row in enumerate(self.rows):
            if number:
                yield Text("")
            for name, cell in zip(self.names, row, strict=True):
                if cell:
                    yield Text(f"{name}{' ' * (margin - cell_len(name))}  {cell}")


def sheet(
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    words: Iterable[str] = (),
    optional: Sequence[str] = (),
    title: str = "",
    notes: Sequence[str] = (),
) -> Sheet:
    """See Sheet. Raises ValueError for a row that has not a cell for each column."""
    cells = tuple(tuple(row) for row in rows)
    for row in cells:
        if len(row) != len(names):
            raise ValueError(f"expected {len(names)} cells ({', '.join(names)}), got {len(row)}: {row}")
    return Sheet(tuple(names), cells, frozenset(words), tuple(optional), title, tuple(notes))


def show(console: Console, shown: RenderableType) -> None:
    """Prints it within a terminal's width; elsewhere every line whole."""
    console.print(shown, soft_wrap=not console.is_terminal, markup=False)


def _pieces(name: str) -> list[str]:
    return [piece.strip() for piece in _PIECE.findall(name)] or [name]


def _wrapped(name: str, width: int) -> str:
    """A header in lines of at most `width` cells, broken where it may be."""
    if cell_len(name) <= width:
        return name
    lines = [""]
    for piece in _PIECE.findall(name) or [name]:
        if cell_len(lines[-1] + piece) <= width:
            lines[-1] += piece
        else:
            lines.append(piece.strip())
    return "\n".join(line for line in lines if line)
