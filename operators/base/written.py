"""The base of values that are files of their own: read from YAML or JSON, written, and told apart."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from operators.base import plain_yaml
from operators.base.errors import ArchitectureError, in_words, one_line
from operators.base.value import Value


class WrittenValue(Value):
    """A model as a value that people write into a file. A subclass has a field `name`, which changes nothing.

    MAIN_KEYS: names the keys that a file must have, for messages.
    """

    MAIN_KEYS: ClassVar[str]

    @classmethod
    def parse(cls, data: Any, *, where: str = "") -> Self:
        """A validated value from plain data.

        where: the source of the data, for messages.

        Raises ArchitectureError, one line that begins with `where`.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ArchitectureError(f"{where}: {one_line(error)}" if where else one_line(error)) from None

    @classmethod
    def from_yaml(cls, text: str, *, where: str = "architecture") -> Self:
        """A value from YAML. Raises ArchitectureError, one line that begins with `where`."""
        return cls.from_plain(plain_from_yaml(text, where=where), where=where)

    @classmethod
    def from_json(cls, text: str, *, where: str = "architecture") -> Self:
        """A value from JSON. Raises ArchitectureError, one line that begins with `where`."""
        return cls.from_plain(plain_from_json(text, where=where), where=where)

    @classmethod
    def from_plain(cls, data: Any, *, where: str) -> Self:
        """A value from a file's content. Raises ArchitectureError, one line that begins with `where`."""
        if not isinstance(data, dict):
            raise ArchitectureError(f"{where}: expected a mapping with {cls.MAIN_KEYS}, got {in_words(data)}")
        return cls.parse(data, where=where)

    def to_json(self) -> str:
        return self.model_dump_json()

    def to_yaml(self) -> str:
        return plain_yaml.dump(self.model_dump(mode="json"))

    def digest(self) -> str:
        """SHA-256 (hex) over canonical JSON without the name: equal for equal models."""
        data = self.model_dump(mode="json", exclude={"name"})
        return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def plain_from_yaml(text: str, *, where: str) -> Any:
    """Plain data from YAML. Raises ArchitectureError, one line that begins with `where`."""
    try:
        return plain_yaml.parse(text)
    except ValueError as error:
        raise ArchitectureError(f"{where}: {error}") from None


def plain_from_json(text: str, *, where: str) -> Any:
    """Plain data from JSON. Raises ArchitectureError, one line that begins with `where`."""
    try:
        return plain_yaml.parse_json(text)
    except ValueError as error:
        raise ArchitectureError(f"{where}: {error}") from None


def plain_from_file(path: Path) -> Any:
    """Plain data from a JSON file (by its ending .json) or a YAML file. Raises ArchitectureError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArchitectureError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    read = plain_from_json if path.suffix == ".json" else plain_from_yaml
    return read(text, where=str(path))
