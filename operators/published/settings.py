"""Values of a config.json, each checked as it is read; a key that nothing reads is refused at the end."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from operators.base.errors import ArchitectureError


class Settings:
    """The mapping of a config.json.

    A missing key has the default; where there is no default it is an error. Null counts as a missing key only
    where `transformers` takes it so, which the argument `null` of a method states. Every error is an
    ArchitectureError of one
    line: `where: key: expected …, got …`.

    values: the mapping.
    where: its file and place, for messages.
    """

    def __init__(self, values: Mapping[str, Any], *, where: str) -> None:
        self.values, self.where = values, where
        self._read: set[str] = set()

    def error(self, key: str, expected: str, got: Any) -> ArchitectureError:
        """The error for a value that is not what was expected."""
        return ArchitectureError(f"{self.where}: {key}: expected {expected}, got {got!r:.80}")

    def get(self, *keys: str, default: Any = None, null: bool = False) -> Any:
        """The value of a setting.

        keys: its names, as a setting may have had several over time; the ones that are there must agree.
        default: the value where no name is there.
        null: whether null means the default.
        """
        self._read.update(keys)
        present = [key for key in keys if key in self.values and not (null and self.values[key] is None)]
        if not present:
            return default
        value = self.values[present[0]]
        for other in present[1:]:
            if self.values[other] != value:
                raise self.error(other, f"{value!r:.80}, as {present[0]} says", self.values[other])
        if value is None:
            raise self.error(present[0], "a value or no such key", value)
        return value

    def size(
        self, *keys: str, default: int | None = None, least: int = 1, most: int = 2**31, null: bool = False
    ) -> int:
        """A whole number from `least` to `most`; see `get` for the other arguments."""
        value = self.get(*keys, default=default, null=null)
        if value is None:
            raise ArchitectureError(f"{self.where}: {keys[0]}: missing")
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.error(keys[0], f"a whole number from {least} to {most}", value)
        return value

    def real(self, *keys: str, default: float) -> float:
        """A positive and finite number."""
        value = self.get(*keys, default=default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e300:
            raise self.error(keys[0], "a positive number", value)
        return float(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A boolean."""
        value = self.get(key, default=default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false", value)
        return value

    def mapping(self, key: str) -> "Settings":
        """A mapping in the mapping; it is empty where it is missing or null."""
        value = self.get(key, default={}, null=True)
        if not isinstance(value, Mapping):
            raise self.error(key, "a mapping", value)
        return Settings(value, where=f"{self.where}: {key}")

    def names(self, key: str) -> list[str] | None:
        """A list of strings; None where it is missing or null."""
        value = self.get(key, null=True)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(item, str) for item in value)
        ):
            raise self.error(key, "a list of names", value)
        return value

    def kinds(
        self, key: str, blocks: int, *, default: Sequence[str], known: Sequence[str] = ()
    ) -> Sequence[str]:
        """The kind of every block.

        blocks: how many there are.
        default: the kinds where the key is missing or null.
        known: all kinds that there may be; empty for any.
        """
        named = self.names(key)
        kinds = default if named is None else named
        if len(kinds) != blocks:
            raise self.error(key, f"{blocks} entries, as num_hidden_layers says", kinds)
        for kind in kinds:
            if known and kind not in known:
                raise self.error(key, " or ".join(known), kind)
        return kinds

    def only(self, key: str, *values: Any, null: bool = False) -> None:
        """Refuses all values of a setting but these; a missing key has the first of them."""
        setting = self.get(key, default=values[0], null=null)
        if not any(_same(setting, value) for value in values):
            raise self.error(key, " or ".join(map(repr, values)), setting)

    def without_effect(self, keys: Iterable[str]) -> None:
        """Counts keys as read that change nothing in what the model computes."""
        self._read.update(keys)

    def refuse_unread(self, family: str, neutral: Mapping[str, Any]) -> None:
        """Refuses every key that was not read, because it may change what the model computes.

        family: of the model, for messages.
        neutral: for some keys the one value with which the key changes nothing.
        """
        for key, value in self.values.items():
            if key in self._read:
                continue
            if key in neutral:
                if not _same(value, neutral[key]):
                    raise self.error(key, repr(neutral[key]), value)
            elif value is not None:
                raise self.error(key, f"a key that is known for {family}", value)


def all_held(where: str, *checks: Callable[[], object]) -> None:
    """Makes checks of a configuration, so that a refusal names all that is not held.

    where: the file and place that messages of the checks begin with.

    Raises ArchitectureError with the messages of all that fail.
    """
    reasons: list[str] = []
    for check in checks:
        try:
            check()
        except ArchitectureError as error:
            reasons.append(str(error).removeprefix(f"{where}: "))
    if reasons:
        raise ArchitectureError(f"{where}: {'; '.join(reasons)}")


def _same(left: Any, right: Any) -> bool:
    """Whether two values are equal; 1 is 1.0, but not true."""
    if isinstance(left, float) and math.isnan(left):
        return False
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)
