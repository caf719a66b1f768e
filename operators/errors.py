"""The exceptions that a user may see; each message is one line that says what was wrong, what was expected, and where.

    FrontrunnerError
    ├── ArchitectureError   an architecture that cannot exist: unknown operator, impossible shape, unknown key
    ├── BackendError        a backend that was named but cannot be used here
    ├── StateError          more rows or tokens than the decode state was allocated for
    ├── DataError           text, tokens or tokenizer that are missing, too short, damaged or do not fit
    ├── DivergedError       a training loss that is not a finite number any more
    ├── DeviceError         a device that is missing or cannot be measured
    ├── OutOfMemoryError    a measurement for which the device's memory is too small
    ├── DeadlineError       a measurement that was given up because it took too long
    ├── CrashError          a measurement whose process died, or whose device refused to go on
    ├── ConfigError         a run's configuration that contradicts itself or its schema
    ├── SpaceExhausted      a search space with no member left that was not proposed before
    ├── RunError            a run or candidate that is missing, exists already, or is being driven by another process
    └── TableError          a latency table that is damaged, lacks entries, or was measured under other conditions

A `FrontrunnerError` is something its reader can mend; anything else that reaches the command line is a defect of the program.
"""

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


class OutOfMemoryError(FrontrunnerError, MemoryError):
    """A measurement for which the device's memory is too small."""


class DeadlineError(FrontrunnerError):
    """A measurement that was given up because it took too long."""


class CrashError(FrontrunnerError):
    """A measurement whose process died, or whose device refused to go on."""


class ConfigError(FrontrunnerError):
    """A run's configuration that contradicts itself or its schema."""


class SpaceExhausted(FrontrunnerError):  # noqa: N818 - a search that has seen everything is finished, not broken
    """A search space with no member left that was not proposed before."""


class RunError(FrontrunnerError):
    """A run or candidate that is missing, exists already, or is being driven by another process."""


class TableError(FrontrunnerError):
    """A latency table that is damaged, lacks entries, or was measured under other conditions."""


_LIST, _MAPPING = "Input should be a list", "Input should be a mapping of keys to values"
_PLAIN = {"tuple_type": _LIST, "dict_type": _MAPPING, "model_type": _MAPPING}
"""What pydantic says in Python's words, in those of YAML."""


def one_line(error: ValidationError, limit: int = 3) -> str:
    """The findings of a pydantic validation as one line: `layers.2.shape.heads: expected …, got …; …`."""
    parts = []
    findings = error.errors(include_url=False)
    causes = [finding for finding in findings if finding["type"] != "too_short"]
    findings = causes or findings  # a bad item also makes its list too short: say only the cause
    for finding in findings[:limit]:
        where = ".".join(str(step) for step in finding["loc"])
        message = _PLAIN.get(finding["type"], finding["msg"].removeprefix("Value error, "))
        if finding["type"] == "extra_forbidden":
            message = "unknown key"
        elif finding["type"] == "missing":
            message = "missing"
        elif finding["type"] != "value_error":
            message = f"{message}, got {finding['input']!r:.60}"
        parts.append(f"{where}: {message}" if where else message)
    more = len(findings) - limit
    return " ".join("; ".join(parts).split()) + (f" (and {more} more)" if more > 0 else "")
