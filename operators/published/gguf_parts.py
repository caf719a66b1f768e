"""Reads GGUF files by the package gguf: one file, or all parts of a split model. Damaged ones are refused."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base.errors import DataError, flat

# The names that llama-gguf-split and llama.cpp's converter give parts. They count
# from 1, the metadata from 0.
PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.gguf)", re.IGNORECASE)
# Tokens in a list at most: the reader needs time for each value, and a damaged file may name any length.
LONGEST_ARRAY = 4_000_000
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"


class GgufPart:
    """One file: its metadata, and its tensors (`ReaderTensor` of the package gguf) in `tensors`.

    Raises DataError for a damaged file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fields, self.tensors = _read(path)

    def __iter__(self) -> Iterator[str]:
        """The keys of the metadata."""
        return iter(self._fields)

    def value(self, key: str) -> Any:
        """A number, a string, a list of such values, or None. Raises DataError for text that is not UTF-8."""
        try:
            return self._fields[key].contents() if key in self._fields else None
        except (ValueError, TypeError, IndexError) as error:
            raise DataError(f"{self.path}: {key}: cannot be read: {error}") from None


def values_of(path: Path, tensor: Any) -> Tensor:
    """The values of a tensor in float32, exactly as the quantized ones mean them.

    path: its file, for messages.

    Raises DataError for a type that cannot be read.
    """
    import gguf

    try:
        return torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
    except NotImplementedError:
        raise DataError(
            f"{path}: {tensor.name}: quantized as {tensor.tensor_type.name}, which cannot be read"
        ) from None


def read_parts(path: Path) -> list[GgufPart]:
    """The file, followed by the other parts if it is the first of several.

    Raises DataError for a damaged file, for a later part, and for parts that are missing
    or do not belong together.
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
    """Raises DataError unless a later part has this number, and all other metadata as the first part."""
    for key in {NUMBER, COUNT, TENSORS, *part}:
        expected = number if key == NUMBER else first.value(key)
        if not key.startswith("GGUF.") and part.value(key) != expected:
            raise DataError(
                f"{part.path}: {key}: expected {expected!r:.60}, "
                f"as it is part {number + 1} of {first.path.name}, got {part.value(key)!r:.60}"
            )


def _require_all_tensors(parts: list[GgufPart]) -> None:
    """Raises DataError for a tensor in two parts, or another number of tensors than the first part states."""
    places: dict[str, Path] = {}
    for part in parts:
        for tensor in part.tensors:
            if tensor.name in places:
                raise DataError(f"{part.path}: {tensor.name}: is in {places[tensor.name].name} already")
            places[tensor.name] = part.path
    if (expected := parts[0].value(TENSORS)) != len(places):
        raise DataError(
            f"{parts[0].path}: {TENSORS}: expected {len(places)}, as all parts together have, "
            f"got {expected!r:.40}"
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
        """A reader that refuses what lies beyond the end of the file.

        The library's reader takes it for empty, and would count a damaged length for hours.
        """

        def _get(self, offset: int, dtype: Any, count: int = 1, *rest: Any, **named: Any) -> Any:
            if offset + int(count) * np.dtype(dtype).itemsize > len(self.data):
                raise ValueError(f"it ends at byte {len(self.data)}, before {count} values at byte {offset}")
            return super()._get(offset, dtype, count, *rest, **named)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type == gguf.GGUFValueType.ARRAY:
                length = int(self._get(orig_offs + 4, np.uint64)[0])  # it follows the type of the values
                if length > LONGEST_ARRAY:
                    raise ValueError(f"a list of {length} values, expected at most {LONGEST_ARRAY}")
            return super()._get_field_parts(orig_offs, raw_type)

    try:
        reader = WithinTheFile(path)
    except Exception as error:  # on damaged bytes the reader may raise anything
        reason = flat(error.args[0] if error.args else type(error).__name__)
        raise DataError(f"{path}: not a GGUF file that can be read: {reason:.200}") from None
    if reader.endianess != gguf.GGUFEndian.LITTLE:
        raise DataError(f"{path}: expected a little-endian GGUF file, got a big-endian one")
    _require_no_gaps(path, reader)
    return dict(reader.fields), list(reader.tensors)


def _require_no_gaps(path: Path, reader: Any) -> None:
    """Raises DataError unless tensors follow one another to the end of the file, padded to the alignment.

    Otherwise a tensor is lost, or two tensors share bytes.
    """
    begin = reader.data_offset
    for tensor in reader.tensors:
        if tensor.data_offset != begin:
            raise DataError(
                f"{path}: {tensor.name}: expected to begin at byte {begin}, got {tensor.data_offset}: "
                "a damaged GGUF file"
            )
        begin += math.ceil(tensor.n_bytes / int(reader.alignment)) * int(reader.alignment)
    if len(reader.data) > begin:
        raise DataError(
            f"{path}: expected to end at byte {begin}, after its last tensor, got {len(reader.data)} bytes"
        )
