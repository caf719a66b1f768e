"""Finds operators: the file name in `library/` is the operator's name.

Other packages register theirs as entry points of the group `frontrunner.operators`.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from operators import library
from operators.base import plugins
from operators.base.errors import ArchitectureError

if TYPE_CHECKING:
    from operators.operator import Operator


@cache
def library_names() -> tuple[str, ...]:
    """The names of Frontrunner's own operators, sorted; none of them is imported."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(library.__path__)))


@cache
def names() -> tuple[str, ...]:
    """The names of all operators, those of other packages included, sorted; none of them is imported."""
    return tuple(sorted({*library_names(), *_of_others()}))


def _of_others() -> Mapping[str, EntryPoint]:
    return plugins.found("frontrunner.operators", library_names())


@cache
def get(name: str) -> "Operator":
    """The operator of that name; imports its file alone. Raises ArchitectureError for an unknown name."""
    if name not in names():
        raise ArchitectureError(
            f"unknown operator {name!r}{_hint(name, names())}: expected one of {', '.join(names())}"
        )
    if name in _of_others():
        from operators.operator import Operator  # needs torch, and much of the program does not

        return plugins.load(_of_others()[name], Operator)
    operator: Operator = importlib.import_module(f"operators.library.{name}").OPERATOR
    return operator


@cache
def symbols() -> dict[str, str]:
    """Symbol -> operator name. Imports every operator."""
    table: dict[str, str] = {}
    for name in names():
        symbol = get(name).symbol
        if symbol in table or symbol in names():
            raise ArchitectureError(
                f"operators {table.get(symbol, symbol)} and {name} share the symbol {symbol!r}"
            )
        table[symbol] = name
    return table


def name_of(token: str) -> str:
    """The operator that a token of the shorthand means: a symbol or a full name."""
    if token in names():
        return token
    if token in symbols():
        return symbols()[token]
    known = ", ".join(f"{symbol} ({name})" for symbol, name in sorted(symbols().items()))
    raise ArchitectureError(f"unknown operator {token!r}{_hint(token, names())}: expected one of {known}")


def _hint(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
