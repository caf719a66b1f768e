"""Values of a config.json, checked one by one as they are read; what nothing reads is refused at the end."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from operators.base.errors import ArchitectureError


class Settings:
    """The mapping of a config.json. A key that is missing takes the default; without one it is an error.

    Null stands for a missing key only where `transformers` takes it so, which the caller says with `null`.
    Every complaint is an ArchitectureError of one line: `where: key: expected …, got …`.
    """

    def __init__(self, values: Mapping[str, Any], *, where: str) -> None:
        self.values, self.where = values, where
        self._read: set[str] = set()

    def error(self, key: str, expected: str, got: Any) -> ArchitectureError:
        return ArchitectureError(f"{self.where}: {key}: expected {expected}, got {got!r:.80}")

    def get(self, *keys: str, default: Any = None, null: bool = False) -> Any:
        """The value of a setting.

        keys: its names, as one setting may have had several; those that are there must agree.
        null: whether a null means the default.
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
        """A whole number from `least` to `most`."""
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
        value = self.get(key, default=default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false", value)
        return value

    def mapping(self, key: str) -> "Settings":
        """A mapping inside, empty where it is missing or null."""
        value = self.get(key, default={}, null=True)
        if not isinstance(value, Mapping):
            raise self.error(key, "a mapping", value)
        return Settings(value, where=f"{self.where}: {key}")

    def names(self, key: str) -> list[str] | None:
        """A list of strings, or None where it is missing or null."""
        value = self.get(key, null=True)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(item, str) for item in value)
        ):
            raise self.error(key, "a list of names", value)
        return value

    def only(self, key: str, *values: Any, null: bool = False) -> None:
        """Refuses anything but `values`: a setting that has one meaning here. A missing one has the first of them."""
        given = self.get(key, default=values[0], null=null)
        if not any(_same(given, value) for value in values):
            raise self.error(key, " or ".join(map(repr, values)), given)

    def without_effect(self, keys: Iterable[str]) -> None:
        """Takes keys for read that change nothing in what the model computes."""
        self._read.update(keys)

    def refuse_unread(self, family: str, neutral: Mapping[str, Any]) -> None:
        """Refuses every key that was not read, because it may change what the model computes.

        family: for which the keys are known. neutral: the one value of a key with which it changes nothing.
        """
        for key, value in self.values.items():
            if key in self._read:
                continue
            if key in neutral:
                if not _same(value, neutral[key]):
                    raise self.error(key, repr(neutral[key]), value)
            elif value is not None:
                raise self.error(key, f"a key that is known for {family}", value)


def _same(left: Any, right: Any) -> bool:
    """Whether two values are equal; 1 is 1.0, but not true."""
    if isinstance(left, float) and math.isnan(left):
        return False
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)
