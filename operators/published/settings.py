"""Values of a config.json, checked one by one as they are read."""

from collections.abc import Mapping
from typing import Any

from operators.errors import ArchitectureError


class Settings:
    """The mapping of a config.json. A key that is missing or null takes the default; without one it is an error.

    Every complaint is an ArchitectureError of one line: `where: key: expected …, got …`.
    """

    def __init__(self, values: Mapping[str, Any], *, where: str) -> None:
        self.values, self.where = values, where

    def error(self, key: str, expected: str, got: Any) -> ArchitectureError:
        return ArchitectureError(f"{self.where}: {key}: expected {expected}, got {got!r:.80}")

    def get(self, *keys: str, default: Any = None) -> Any:
        """The first of `keys` (one setting may have had several names) that has a value."""
        return next((self.values[key] for key in keys if self.values.get(key) is not None), default)

    def size(self, *keys: str, default: int | None = None, least: int = 1, most: int = 2**31) -> int:
        """A whole number from `least` to `most`."""
        value = self.get(*keys, default=default)
        if value is None:
            raise ArchitectureError(f"{self.where}: {keys[0]}: missing")
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.error(keys[0], f"a whole number from {least} to {most}", value)
        return value

    def real(self, *keys: str, default: float) -> float:
        """A positive number."""
        value = self.get(*keys, default=default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise self.error(keys[0], "a positive number", value)
        return float(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self.get(key, default=default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false", value)
        return value

    def mapping(self, key: str) -> "Settings":
        """A mapping inside, empty where it is missing or null."""
        value = self.get(key, default={})
        if not isinstance(value, Mapping):
            raise self.error(key, "a mapping", value)
        return Settings(value, where=f"{self.where}: {key}")

    def names(self, key: str) -> list[str] | None:
        """A list of strings, or None where it is missing or null."""
        value = self.get(key)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(item, str) for item in value)
        ):
            raise self.error(key, "a list of names", value)
        return value

    def only(self, key: str, value: Any) -> None:
        """Refuses anything but `value`: a setting that has one meaning here."""
        if (found := self.get(key, default=value)) != value:
            raise self.error(key, repr(value), found)
