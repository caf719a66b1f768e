"""GGUF files as the package gguf reads them, whole ones only: one file, or all parts of a model that was split."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from operators.base.errors import DataError, flat

# As llama-gguf-split and the converter of llama.cpp name the parts, counted from 1; the metadata counts from 0.
PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.gguf)", re.IGNORECASE)
LONGEST_ARRAY = (
    4_000_000  # tokens at most; the reader takes its time for each value, also of a damaged length
)
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"


class GgufPart:
    """One file: its metadata and its tensors (`ReaderTensor` of the package gguf). Raises DataError for a damaged one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fields, self.tensors = _read(path)

    def __iter__(self) -> Iterator[str]:
        """The keys of the metadata."""
        return iter(self._fields)

    def value(self, key: str) -> Any:
        """A number, a string, a list of those, or None. Raises DataError for text that is not UTF-8."""
        try:
            return self._fields[key].contents() if key in self._fields else None
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(f"{self.path}: {key}: cannot be read: {error}") from None


def read_parts(path: Path) -> list[GgufPart]:
    """The file, followed by the others where it is the first part of several.

    Raises DataError for a damaged file, for a later part, and for parts that are missing or do not belong together.
    """
    first = GgufPart(path)
    named = PART.fullmatch(path.name)
    count = first.value(COUNT)
    if count in (None, 0, 1):
        if named and int(named["count"]) > 1:
            raise DataError(
                f"{path}: {COUNT}: expected {int(named['count'])}, as the file's name says, got {count}"
            )
        return [first]
    number = first.value(NUMBER)
    if not isinstance(count, int) or not isinstance(number, int) or not 0 <= number < count:
        raise DataError(
            f"{path}: expected {NUMBER} from 0 up to below {COUNT}, got {number!r:.40} and {count!r:.40}"
        )
    if not named or (int(named["number"]), int(named["count"])) != (number + 1, count):
        raise DataError(
            f"{path}: expected a name that ends in -{number + 1:05}-of-{count:05}.gguf, "
            f"as it is part {number + 1} of {count}, and the other parts are found by their names"
        )
    names = [f"{named['name']}-{n:05}-of-{named['count']}{named['ending']}" for n in range(1, count + 1)]
    if number != 0:
        raise DataError(f"{path}: expected the first part of {count}, {names[0]}, got part {number + 1}")
    parts = [first]
    for later, name in enumerate(names[1:], start=1):
        if not (path.parent / name).is_file():
            raise DataError(f"{path.parent / name}: missing: part {later + 1} of {count}")
        parts.append(GgufPart(path.parent / name))
        _require_same_model(first, parts[-1], later)
    _require_all_tensors(parts)
    return parts


def _require_same_model(first: GgufPart, part: GgufPart, number: int) -> None:
    """A later part says which it is; whatever else it says, the first one must say too."""
    for key in {NUMBER, COUNT, TENSORS, *part}:
        expected = number if key == NUMBER else first.value(key)
        if not key.startswith("GGUF.") and part.value(key) != expected:
            raise DataError(
                f"{part.path}: {key}: expected {expected!r:.60}, as it is part {number + 1} of {first.path.name}, "
                f"got {part.value(key)!r:.60}"
            )


def _require_all_tensors(parts: list[GgufPart]) -> None:
    places: dict[str, Path] = {}
    for part in parts:
        for tensor in part.tensors:
            if tensor.name in places:
                raise DataError(f"{part.path}: {tensor.name}: is in {places[tensor.name].name} already")
            places[tensor.name] = part.path
    if (expected := parts[0].value(TENSORS)) != len(places):
        raise DataError(
            f"{parts[0].path}: {TENSORS}: expected {len(places)}, as all parts together have, got {expected!r:.40}"
        )


def _read(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Metadata and tensors of one file."""
    try:
        import gguf
    except ImportError as error:
        raise DataError(
            f"{path}: reading GGUF needs the package gguf (`pip install gguf`): {error}"
        ) from None

    class WithinTheFile(gguf.GGUFReader):
        """The reader takes what lies behind the end for nothing, and would count a damaged length for hours."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *rest: Any, **named: Any) -> Any:
            if offset + int(count) * np.dtype(dtype).itemsize > len(self.data):
                raise ValueError(f"it ends at byte {len(self.data)}, before {count} values at byte {offset}")
            return super()._get(offset, dtype, count, *rest, **named)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type == gguf.GGUFValueType.ARRAY:
                length = int(self._get(orig_offs + 4, np.uint64)[0])  # behind the type of its values
                if length > LONGEST_ARRAY:
                    raise ValueError(f"a list of {length} values, expected at most {LONGEST_ARRAY}")
            return super()._get_field_parts(orig_offs, raw_type)

    try:
        reader = WithinTheFile(path)
    except Exception as error:  # damaged bytes may trip the reader anywhere: all of it is about this file
        reason = flat(error.args[0] if error.args else type(error).__name__)
        raise DataError(f"{path}: not a GGUF file that can be read: {reason:.200}") from None
    if reader.endianess != gguf.GGUFEndian.LITTLE:
        raise DataError(f"{path}: expected a little-endian GGUF file, got a big-endian one")
    _require_no_gaps(path, reader)
    return dict(reader.fields), list(reader.tensors)


def _require_no_gaps(path: Path, reader: Any) -> None:
    """Tensors follow one another, padded to the alignment, to the end: else one is lost, or two share their bytes."""
    begin = reader.data_offset
    for tensor in reader.tensors:
        if tensor.data_offset != begin:
            raise DataError(
                f"{path}: {tensor.name}: expected to begin at byte {begin}, got {tensor.data_offset}: a damaged GGUF file"
            )
        begin += math.ceil(tensor.n_bytes / int(reader.alignment)) * int(reader.alignment)
    if len(reader.data) > begin:
        raise DataError(
            f"{path}: expected to end at byte {begin}, after its last tensor, got {len(reader.data)} bytes"
        )
