"""What the operators need of the program around them, in the standard library alone.

In an exported folder it stands for validation, errors and kernel libraries. The shapes there were validated
when the folder was written.
"""

from inspect import get_annotations
from typing import Any

_NO_DEFAULT = object()


def Field(default: Any = _NO_DEFAULT, **limits: Any) -> Any:  # noqa: N802 - the name that the operators use
    return default


def model_validator(**when: Any) -> Any:
    return lambda function: function


class Value:
    """A frozen value with the fields that its class annotates."""

    def __init__(self, **values: Any) -> None:
        kinds = reversed(type(self).__mro__)
        names = list(dict.fromkeys(name for kind in kinds for name in get_annotations(kind)))
        for name in names:
            value = values.pop(name, getattr(type(self), name, _NO_DEFAULT))
            if value is _NO_DEFAULT:
                raise ValueError(f"{type(self).__name__}.{name}: expected a value, got none")
            self.__dict__[name] = value
        if values:
            unknown = ", ".join(values)
            raise ValueError(f"{type(self).__name__}: unknown {unknown}: expected {', '.join(names)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self).__name__, *sorted(vars(self).items())))


class ArchitectureError(ValueError):
    pass


class BackendError(RuntimeError):
    pass


class StateError(RuntimeError):
    pass


class DataError(ValueError):
    pass


class ConfigError(ValueError):
    pass


class DivergedError(RuntimeError):
    pass


in_words = flat = repr


def load(module: str) -> Any:
    """Raises ImportError: kernel libraries are not used."""
    raise ImportError(f"{module} is not used here")


def refusal(*circumstances: Any) -> str:
    return "kernel libraries are not used here"


def tuned(architecture: str) -> dict[str, Any]:
    return {}
