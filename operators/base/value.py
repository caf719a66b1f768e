"""The base of every value that people write down: frozen, and strict about its keys.

An unknown key is refused, and the message names the keys that exist.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from operators.base.errors import in_words

Place = tuple[str | int, ...]
# Types whose values hold no others.
_PLAIN = frozenset((int, float, str, bool, type(None)))


class Value(BaseModel):
    """A frozen pydantic model whose complaint about an unknown key names the known ones.

    A number is a number, text is text, and true is not 1: none is taken for another. A whole number may be
    written as 1e6 or 2.0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with other fields where `update` has them. What was kept of the old ones is left behind."""
        made = super().model_copy(update=update, deep=deep)
        known = type(self).__pydantic_fields__
        if update and len(made.__dict__) > len(known):  # of cached properties
            for name in made.__dict__.keys() - known.keys() - update.keys():
                del made.__dict__[name]
        return made

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            fields = cls.model_fields  # pydantic looks them up anew each time
            keys = [str(key) for key in data if key not in fields]
            # Quotes show what cannot be seen, such as a space of another kind that a web page put before a
            # key.
            unknown = [key if key.isprintable() and key == key.strip() and key else repr(key) for key in keys]
            if unknown:
                plural = "s" if len(unknown) > 1 else ""
                raise ValueError(
                    f"unknown key{plural} {', '.join(unknown)}: expected {', '.join(fields) or 'none'}"
                )
        return data

    @model_validator(mode="wrap")
    @classmethod
    def _kinds_are_kept(cls, data: Any, validated: ModelWrapValidatorHandler[Self]) -> Self:
        value = validated(data)
        if not isinstance(data, Mapping):
            return value
        findings = [
            InitErrorDetails(
                type=PydanticCustomError("value_error", "{problem}", {"problem": problem}),
                loc=place,
                input=data,
            )
            for name, given in data.items()
            if type(given) is not type(made := getattr(value, name, None)) or type(given) not in _PLAIN
            if not isinstance(made, Value)  # which has looked at its own fields
            for place, problem in _changed(given, made, (name,))
        ]
        if findings:
            raise ValidationError.from_exception_data(cls.__name__, findings)
        return value


def whole(value: Any) -> int | None:
    """The whole number that a value is, also as 1e6 or 2.0; None for anything else, such as true and '2'."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _plain_alike(given: Collection[Any], values: Collection[Any]) -> bool:
    """Whether both have plain values of the same types in the same order: a look that takes little time."""
    kinds = list(map(type, given))
    return _PLAIN.issuperset(kinds) and kinds == list(map(type, values))


def _changed(given: Any, value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """Where pydantic changed the kind of a value: each place, and what is wrong there.

    It may have made a number of text or of true, or a truth value of a number or of text.
    """
    if isinstance(value, bool):
        if not isinstance(given, bool):
            yield place, f"expected true or false, got {in_words(given)}"
    elif isinstance(value, int | float):
        if isinstance(given, bool | str | bytes):
            yield (
                place,
                f"expected {'a whole number' if isinstance(value, int) else 'a number'}, "
                f"got {in_words(given)}",
            )
    elif isinstance(value, list | tuple) and isinstance(given, list | tuple):
        if _plain_alike(given, value):
            return
        for number, (each, made) in enumerate(zip(given, value, strict=False)):
            yield from _changed(each, made, (*place, number))
    elif isinstance(value, Mapping) and isinstance(given, Mapping):
        if _plain_alike(given.values(), value.values()):
            return
        for (key, each), made in zip(given.items(), value.values(), strict=False):
            yield from _changed(each, made, (*place, str(key)))
