"""Changes of a configuration's keys on the command line, as in `proxy.tokens=2e6`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from operators.base import plain_yaml
from operators.base.errors import ConfigError, in_words

_CHANGE = re.compile(r"(?P<key>[^=\s]+?)\s*=(?P<value>.*)", re.S)


def changed(data: Any, changes: Sequence[str]) -> Any:
    """Plain values of a file with some keys changed; they are validated afterwards, as those of the file.

    data: as YAML gives it; None is an empty file. It stays as it is.
    changes: `KEY=VALUE` with a key as `section.key` and a value in YAML.

    Raises ConfigError.
    """
    seen: set[str] = set()
    for text in changes:
        match = _CHANGE.fullmatch(text.strip())
        if match is None or not all(match["key"].split(".")):
            raise ConfigError(f"--set {text}: expected KEY=VALUE, as in proxy.tokens=2e6")
        key = match["key"]
        if other := next((one for one in seen if _overlap(one, key)), None):
            raise ConfigError(f"--set {text}: {other} is set already, expected each key once")
        seen.add(key)
        data = _with({} if data is None else data, key.split("."), _value(text, match["value"]), text)
    return data


def _overlap(one: str, other: str) -> bool:
    """Whether two keys are the same, or one is a section that holds the other."""
    shorter, longer = sorted((f"{one}.", f"{other}."), key=len)
    return longer.startswith(shorter)


def _value(text: str, value: str) -> Any:
    try:
        return plain_yaml.parse(value)
    except ValueError as error:
        raise ConfigError(f"--set {text}: not a value in YAML: {error}") from None


def _with(data: Any, keys: Sequence[str], value: Any, text: str) -> dict[str, Any]:
    """A copy of nested mappings in which one key has another value."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"--set {text}: expected a mapping of keys above {keys[0]}, got {in_words(data)}")
    first, *rest = keys
    if not rest:
        return {**data, first: value}
    inner = data.get(first)
    return {**data, first: _with({} if inner is None else inner, rest, value, text)}
