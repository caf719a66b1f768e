"""The exceptions that a user may see, each with a one-line message.

The message states what was wrong, what was expected, and where.

    FrontrunnerError
    ├── ArchitectureError   an architecture that cannot exist: unknown operator, impossible shape, unknown key
    ├── BackendError        a backend that was named but cannot be used here
    ├── StateError          more rows or tokens than the decode state was allocated for
    ├── DataError           text, tokens or tokenizer that are missing, too short, damaged or do not fit
    ├── DivergedError       a training loss that is not a finite number any more
    ├── DeviceError         a device that is missing or cannot be measured
    │   └── BrokenDeviceError   a device that this process can no longer use, and another one can
    ├── OutOfMemoryError    a measurement for which the device's memory is too small
    ├── DeadlineError       a measurement that was given up because it took too long
    ├── CrashError          a measurement whose process died, or whose device no longer works
    ├── ConfigError         a run's configuration that contradicts itself or its schema
    ├── SpaceExhausted      a search space with no member left that was not proposed before
    ├── RunError            a run or candidate that is missing, exists already, or is driven by another
    │                       process
    └── TableError          a latency table that is damaged, lacks entries, or belongs to other conditions

A `FrontrunnerError` is something that its reader can mend. Any other error that reaches the command line is a
defect of the program.
"""

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError


class FrontrunnerError(Exception):
    """Base of every error that is meant to be read by a person."""


class ArchitectureError(FrontrunnerError, ValueError):
    """An architecture that cannot exist."""


class BackendError(FrontrunnerError):
    """A backend that was named but cannot be used here."""


class StateError(FrontrunnerError):
    """More rows or tokens than the decode state was allocated for."""


class DataError(FrontrunnerError):
    """Text, tokens or a tokenizer that are missing, too short, damaged or do not fit."""


class DivergedError(FrontrunnerError):
    """A training loss that is not a finite number any more."""


class DeviceError(FrontrunnerError):
    """A device that is missing or cannot be measured."""


class BrokenDeviceError(DeviceError):
    """A device that this process can no longer use, and another one can."""


class OutOfMemoryError(FrontrunnerError, MemoryError):
    """A measurement for which the device's memory is too small."""


class DeadlineError(FrontrunnerError):
    """A measurement that was given up because it took too long."""


class CrashError(FrontrunnerError):
    """A measurement whose process died, or whose device no longer works."""


class ConfigError(FrontrunnerError):
    """A run's configuration that contradicts itself or its schema."""


class SpaceExhausted(FrontrunnerError):  # noqa: N818 - a search that has seen everything is done, not broken
    """A search space with no member left that was not proposed before."""


class RunError(FrontrunnerError):
    """A run or candidate that is missing, exists already, or is driven by another process."""


class TableError(FrontrunnerError):
    """A latency table that is damaged, lacks entries, or was measured under other conditions."""


def flat(error: object, *, at_most: int | None = None) -> str:
    """An error, or another text, on one line.

    error: the error or text
    at_most: how many characters are kept; None keeps all
    """
    return " ".join(str(error).split())[:at_most]


def first_line(error: BaseException) -> str:
    """The first line of an error that may go on for long, as CUDA's do; its class where it says nothing."""
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:300]


class _Short(reprlib.Repr):
    """Values as YAML writes them, cut where they are long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60
        self.maxlist = self.maxtuple = self.maxdict = 4
        self.maxlevel = 2

    def repr1(self, x: Any, level: int) -> str:
        if x is None or isinstance(x, bool):
            return {None: "null", True: "true", False: "false"}[x]
        return super().repr1(x, level)


_SHORT = _Short()
_NUMBER, _LIST, _MAPPING = "a whole number", "a list", "a mapping of keys to values"
# What was expected, by the kind of pydantic's finding. Pydantic's own words are Python's; these are YAML's.
_EXPECTED = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": _NUMBER,
    "int_parsing": _NUMBER,
    "int_from_float": _NUMBER,
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_type": "text",
    "string_unicode": "text",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text like the pattern {pattern}",
    "tuple_type": _LIST,
    "list_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "iterable_type": _LIST,
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "invalid_key": "keys that are text",
    "none_required": "null",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "datetime_type": "a date and time",
    "datetime_parsing": "a date and time",
    "datetime_from_date_parsing": "a date and time",
    "datetime_object_invalid": "a date and time",
    "union_tag_invalid": "{discriminator} to be one of {expected_tags}",
    "union_tag_not_found": "{discriminator}",
    "json_invalid": "JSON",
    "json_type": "JSON",
    "recursion_loop": "something that does not hold itself",
    "missing": "a value",
}

# A step of a finding's place that is no key, but one of several types that were tried.
_BRANCH = re.compile(r"str|int|float|bool|none|[\w-]+\[.*")


def in_words(value: object) -> str:
    """A value that was not expected, as its file has it, cut where it is long."""
    return flat(_SHORT.repr(value))


def one_line(error: ValidationError, limit: int = 3) -> str:
    """The findings of a pydantic validation as one line: `layers.2.shape.heads: expected …, got …; …`.

    limit: how many findings are written out
    """
    grouped: dict[tuple[str, ...], list[Any]] = {}
    for finding in error.errors(include_url=False):
        place = tuple(str(step) for step in finding["loc"] if not _BRANCH.fullmatch(str(step)))
        grouped.setdefault(place, []).append(finding)
    # A bad entry also makes its list too short, and is no text where text was possible: only the cause is
    # reported.
    causes = [
        (place, findings)
        for place, findings in grouped.items()
        if not any(other[: len(place)] == place and other != place for other in grouped)
    ]
    parts = [
        f"{'.'.join(place)}: {_told(findings)}" if place else _told(findings)
        for place, findings in causes[:limit]
    ]
    more = len(causes) - limit
    return flat("; ".join(parts)) + (f" (and {more} more)" if more > 0 else "")


def _told(findings: Sequence[Any]) -> str:
    """The complaints about one place, where each type that was possible may have its own."""
    first = findings[0]
    if first["type"] in ("value_error", "assertion_error"):
        return str(first["ctx"]["error"]) if first.get("ctx", {}).get("error") else str(first["msg"])
    if first["type"] in ("missing", "extra_forbidden"):
        return "missing" if first["type"] == "missing" else "unknown key"
    counted = {"too_short": "actual_length", "too_long": "actual_length"}
    value = first["ctx"].get(counted[first["type"]]) if first["type"] in counted else first["input"]
    expected = " or ".join(dict.fromkeys(expectation(each["type"], each.get("ctx")) for each in findings))
    return f"expected {expected}, got {in_words(value)}"


def expectation(kind: str, context: Mapping[str, Any] | None) -> str:
    """What pydantic expected, in YAML's words.

    kind: of pydantic's finding
    context: the finding's values for the message
    """
    return _EXPECTED.get(kind, "another kind of value").format(**context or {})
