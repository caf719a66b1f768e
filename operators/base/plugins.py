"""Operators, objectives and searchers of other packages, which register them as entry points.

The installed ones are read from the metadata of distributions, so that each worker process finds the same.
Nothing is imported before it is asked for by name.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

from operators.base.errors import ConfigError

Group = Literal["frontrunner.operators", "frontrunner.objectives", "frontrunner.searchers"]
T = TypeVar("T")


@cache
def found(group: Group, taken: tuple[str, ...] = ()) -> Mapping[str, EntryPoint]:
    """The entry points of a group, by name.

    group: the kind of entry points
    taken: names that are Frontrunner's own

    Raises ConfigError where a name is one of these, belongs to two distributions, or is not written in small
        letters.
    """
    by_name: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if not point.name.isidentifier() or not point.name.islower():
            raise ConfigError(f"{_where(point)}: expected a name of small letters, digits and _")
        if point.name in taken:
            raise ConfigError(
                f"{_where(point)}: {point.name} is a name of Frontrunner's own, expected another"
            )
        if point.name in by_name:
            raise ConfigError(f"{_where(point)}: {_distribution(by_name[point.name])} has that name as well")
        by_name[point.name] = point
    return by_name


def load(point: EntryPoint, kind: type[T]) -> T:
    """What an entry point names.

    point: the entry point
    kind: the class that the value must be an instance of

    Raises ConfigError where it cannot be imported, or is of another kind.
    """
    value = _imported(point)
    if not isinstance(value, kind):
        raise ConfigError(f"{_where(point)}: expected {_a(kind.__name__)}, got {_a(type(value).__name__)}")
    return value


def load_callable(point: EntryPoint) -> Callable[..., Any]:
    """The class or function that an entry point names.

    Raises ConfigError where it cannot be imported, or is not callable.
    """
    value = _imported(point)
    if not callable(value):
        raise ConfigError(f"{_where(point)}: expected a class or function, got {_a(type(value).__name__)}")
    return value  # type: ignore[no-any-return]


def _imported(point: EntryPoint) -> Any:
    try:
        return point.load()
    # An import runs code of others, which may raise anything.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(f"{_where(point)}: cannot be loaded: {reason}") from None


def _where(point: EntryPoint) -> str:
    return f"{_distribution(point)}: entry point {point.group}: {point.name} = {point.value}"


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unnamed distribution"


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
