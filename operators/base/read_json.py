"""Reads values from JSON, thousands of them and quickly.

`Value` keeps numbers, text and truth values apart by looking at what was given once more, in Python. That is
nine tenths of the time. What a program of ours wrote passes pydantic's strict rules, which keep them apart
too: such JSON is read by pydantic alone. Everything else is validated as usual, which has the messages.
"""

from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator, from_json

from operators.base.value import Value

T = TypeVar("T")
_IN_PYTHON = frozenset((Value._only_known_keys.__func__, Value._kinds_are_kept.__func__))


class JsonReader(Generic[T]):
    """Reads values of one kind.

    kind: a `Value`, or a type that holds some, as `tuple[Value, ...]`.
    """

    def __init__(self, kind: type[T]) -> None:
        self._usual: TypeAdapter[T] = TypeAdapter(kind)
        self._strict = SchemaValidator(_without_python(self._usual.core_schema))

    def read(self, text: str) -> T:
        """The value, as validating the parsed text gives it. Raises ValueError, for torn JSON too."""
        try:
            value: T = self._strict.validate_json(text, strict=True)
        except ValidationError:
            return self._usual.validate_python(from_json(text))
        return value


def _without_python(schema: Any) -> Any:
    """A core schema without the validators of `Value`; those of its subclasses stay."""
    if isinstance(schema, list):
        return [_without_python(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    function = schema.get("function")
    called = function.get("function") if isinstance(function, dict) else None
    if getattr(called, "__func__", None) in _IN_PYTHON:
        inner = _without_python(schema["schema"])
        return {**inner, "ref": schema["ref"]} if "ref" in schema else inner
    return {key: _without_python(value) for key, value in schema.items()}
