"""Finds operators: the file name in `library/` is the operator's name."""

import difflib
import importlib
import pkgutil
from functools import cache

from operators import library
from operators.base.errors import ArchitectureError
from operators.operator import Operator


@cache
def names() -> tuple[str, ...]:
    """The names of all operators, sorted; none of them is imported."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(library.__path__)))


@cache
def get(name: str) -> Operator:
    """The operator of that name; imports its file alone. Raises ArchitectureError for an unknown name."""
    if name not in names():
        raise ArchitectureError(
            f"unknown operator {name!r}{_hint(name, names())}: expected one of {', '.join(names())}"
        )
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
