"""Reads JSON files of published models: a doubled key is refused, of which Python would take the last."""

import json
from pathlib import Path
from typing import Any

from operators.base.errors import DataError


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file. Raises DataError, which names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_doubles)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a mapping, got {type(value).__name__}")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"{key} stands twice, as {mapping[key]!r:.40} and as {value!r:.40}")
        mapping[key] = value
    return mapping
