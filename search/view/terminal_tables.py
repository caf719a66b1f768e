"""Tables for a terminal, which never cut a cell.

In a narrow terminal words wrap first, then optional columns are left out and named below the table, and at
last each row becomes a paragraph. Without a terminal there is no width to keep to, and every row is one line.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import le

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_GAP = 2  # cells (widths of a letter) between columns
_READABLE = 16  # cells; a column of words is not made narrower, unless all of its words are shorter
_LONGEST_WORD = 40  # cells; a longer word, such as a path in a reason, is broken over lines
# A header may be broken at spaces, before a unit in brackets, and before `@`, `.` and `/`.
_PIECE = re.compile(r" *(?:\[[^\]]*\]|[@./]?[^@./ ]+)")
_UNLIMITED = 1_000_000  # cells; wider than any row


@dataclass(frozen=True)
class Sheet:
    """A table that lays itself out for the console that shows it.

    names: names of the columns.
    rows: cells of each row, one for each column.
    words: columns of words, which are left-aligned and may wrap. All others hold figures, which are
        right-aligned and never wrap.
    optional: columns to leave out where the width is too small, the last one first.
    title: line above the table.
    notes: lines below the table.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[str] = frozenset()
    optional: tuple[str, ...] = ()
    title: str = ""
    notes: tuple[str, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # `show` sets this overflow (by soft_wrap) where there is no terminal.
        width = _UNLIMITED if options.overflow == "ignore" else options.max_width
        title = [Text(self.title, style="bold")] if self.title else []
        for part in (*title, *self._body(width), *map(Text, self.notes)):
            if isinstance(part, Segment):
                yield part
                continue
            yield from console.render(part, options.update(width=width, no_wrap=False, overflow="fold"))

    def _body(self, width: int) -> Iterable[RenderableType | Segment]:
        """The first layout that fits: all columns, fewer columns, or a paragraph for each row."""
        for dropped in range(len(self.optional) + 1):
            left_out = self.optional[len(self.optional) - dropped :]
            shown = [number for number, name in enumerate(self.names) if name not in left_out]
            for headers_wrap in (False, True):
                widths = self._widths(shown, width, headers_wrap=headers_wrap)
                if widths is not None:
                    yield self._table(shown, widths)
                    yield from self._lines(shown, widths)
                    if left_out:
                        yield Text(
                            f"not shown in {width} columns: {', '.join(left_out)}; "
                            "a wider terminal or a pipe shows them"
                        )
                    return
        yield from self._stacked()

    def _widths(self, shown: Sequence[int], width: int, *, headers_wrap: bool) -> list[int] | None:
        """The widths of columns in cells; None if they do not fit.

        shown: numbers of the columns.
        width: cells of the terminal.
        headers_wrap: whether headers may be broken over lines.
        """
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

    def _lines(self, shown: Sequence[int], widths: Sequence[int]) -> Iterable[RenderableType | Segment]:
        """The rows below the header. Rich, which takes ten times longer, lays out those that have to wrap."""
        left = [self.names[number] in self.words for number in shown]
        for row in self.rows if shown else ():
            cells = [row[number] for number in shown]
            lengths = list(map(cell_len, cells))
            if all(map(_plain, cells)) and all(map(le, lengths, widths)):
                spaces = [" " * (width - length) for width, length in zip(widths, lengths, strict=True)]
                padded = [
                    cell + space if at_left else space + cell
                    for cell, space, at_left in zip(cells, spaces, left, strict=True)
                ]
                yield Segment((" " * _GAP).join(padded) + "\n")
            else:
                yield self._table(shown, widths, row)

    def _table(self, shown: Sequence[int], widths: Sequence[int], row: Sequence[str] = ()) -> Table:
        """The header, or one row where it is given."""
        table = Table(
            show_header=not row,
            box=box.SIMPLE_HEAD,
            header_style="bold",
            show_edge=False,
            pad_edge=False,
            padding=(0, _GAP - 1, 0, 0),  # the box adds one cell
        )
        for number, width in zip(shown, widths, strict=True):
            name = self.names[number]
            table.add_column(
                Text(_wrapped(name, width)),
                justify="left" if name in self.words else "right",
                width=width,
                overflow="fold",
            )
        if row:
            table.add_row(*(Text(row[number]) for number in shown))
        return table

    def _stacked(self) -> Iterable[RenderableType]:
        """A paragraph for each row, with a line for each cell."""
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
    """Makes a Sheet from the values of its fields. Raises ValueError if a row has a wrong number of cells."""
    cells = tuple(tuple(row) for row in rows)
    for row in cells:
        if len(row) != len(names):
            raise ValueError(f"expected {len(names)} cells ({', '.join(names)}), got {len(row)}: {row}")
    return Sheet(tuple(names), cells, frozenset(words), tuple(optional), title, tuple(notes))


def show(console: Console, shown: RenderableType) -> None:
    """Prints a table within the terminal's width, or without wrapping if there is no terminal."""
    console.print(shown, soft_wrap=not console.is_terminal, markup=False)


def _plain(cell: str) -> bool:
    """Whether a cell that fits is printed as it is."""
    return (cell.isprintable() and cell == cell.strip()) or not cell


def _pieces(name: str) -> list[str]:
    """The pieces that a header may be broken into."""
    return [piece.strip() for piece in _PIECE.findall(name)] or [name]


def _wrapped(name: str, width: int) -> str:
    """A header broken into lines of at most `width` cells."""
    if cell_len(name) <= width:
        return name
    lines = [""]
    for piece in _PIECE.findall(name) or [name]:
        if cell_len(lines[-1] + piece) <= width:
            lines[-1] += piece
        else:
            lines.append(piece.strip())
    return "\n".join(line for line in lines if line)
