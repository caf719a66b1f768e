"""Writes GGUF files from their outlines and our weights: all of them or none."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base.errors import DataError, RunError
from operators.published.gguf_export.outline import Outline, Stored, Value
from operators.published.gguf_export.sizes import Dtype, bytes_of, kind_of

SHOWN = 3  # names in a message; the others are counted
# general.file_type, by which llama.cpp names the quantization.
FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}


@dataclass(frozen=True)
class File:
    """A file to be written.

    to: a new file that ends in .gguf.
    plan: what it holds.
    parameters: our weights by name. They are read one tensor at a time.
    kind: its `general.type`.
    name: of the model.
    add_more: adds what else its metadata has.
    split_bytes: the most that the tensors of one part may take, unless a single one takes more; None for one
        file.
    """

    to: Path
    plan: Outline
    parameters: Mapping[str, Tensor]
    kind: str
    name: str
    add_more: Callable[[Any], None]
    split_bytes: int | None = None


def require_package(to: Path) -> None:
    """Raises RunError where the package gguf is missing."""
    try:
        import gguf  # noqa: F401 - imported where it is used
    except ImportError as error:
        raise RunError(f"{to}: writing GGUF needs the package gguf (`pip install gguf`): {error}") from None


def require_weights(expected: Mapping[str, torch.Size], parameters: Mapping[str, Tensor]) -> None:
    """Raises DataError unless the weights have these names and shapes."""
    shapes = {name: tuple(shape) for name, shape in expected.items()}
    for name in sorted(shapes.keys() | parameters.keys()):
        got = tuple(parameters[name].shape) if name in parameters else None
        if shapes.get(name) != got:
            raise DataError(f"weight {name}: expected {shapes.get(name) or 'none'}, got {got or 'none'}")


def write_files(files: Sequence[File], dtype: Dtype) -> list[tuple[Path, ...]]:
    """Writes all files or none, and returns the parts of each.

    Raises DataError for weights beyond the range of `dtype`, and RunError where a file exists or cannot be
    written.
    """
    for file in files:
        if file.to.suffix != ".gguf":
            raise RunError(f"{file.to}: expected a name that ends in .gguf")
    to = files[0].to
    try:
        with ExitStack() as folders:
            pairs = []
            for file in files:
                to = file.to
                to.parent.mkdir(parents=True, exist_ok=True)
                folder = tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent)
                pairs.append(_written(file, Path(folders.enter_context(folder)), dtype))
            _move([pair for part in pairs for pair in part])
    except OSError as error:
        raise RunError(f"{to}: cannot be written: {error.strerror or error}") from None
    return [tuple(target for _, target in part) for part in pairs]


def _written(file: File, folder: Path, dtype: Dtype) -> list[tuple[Path, Path]]:
    """Each part in a folder, and where it belongs."""
    kinds = {tensor.name: kind_of(tensor, dtype) for tensor in file.plan.tensors}
    writer = _writer(file.plan, kinds, folder / file.to.name, file.split_bytes)
    parts = writer.format_shard_names(folder / file.to.name)
    pairs = [(part, file.to.parent / part.name) for part in parts]
    _require_new([file.to, *(target for _, target in pairs)])
    try:
        _add_metadata(writer, file, dtype)
        file.add_more(writer)
        _write(writer, file.plan, kinds, file.parameters)
    finally:
        writer.close()
    return pairs


def _writer(plan: Outline, kinds: Mapping[str, Any], path: Path, split_bytes: int | None) -> Any:
    """The gguf.GGUFWriter, which knows the tensors' sizes and so how many parts there are."""
    import gguf

    writer = gguf.GGUFWriter(path, plan.family, split_max_size=split_bytes or 0)
    for tensor in plan.tensors:
        kind = kinds[tensor.name]
        # The second type only counts where the first one is unknown.
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32), bytes_of(tensor, kind), raw_dtype=kind
        )
    return writer


def _add_metadata(writer: Any, file: File, dtype: Dtype) -> None:
    writer.add_type(file.kind)
    writer.add_name(file.name)
    writer.add_file_type(FILE_TYPES[dtype])
    if dtype == "Q8_0":
        writer.add_quantization_version(2)  # of the package's blocks
    for key, value in file.plan.keys.items():
        _add(writer, f"{file.plan.family}.{key}", value)


def _add(writer: Any, key: str, value: Value) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def _write(writer: Any, plan: Outline, kinds: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> None:
    import gguf

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in plan.tensors:
        kind = kinds[tensor.name]
        values = _values(tensor, parameters)
        if kind == gguf.GGMLQuantizationType.F16 and np.abs(values).max() > np.finfo(np.float16).max:
            raise DataError(
                f"weight {tensor.parts[0]}: expected values up to {np.finfo(np.float16).max:g} for F16, "
                f"got {np.abs(values).max():g}"
            )
        writer.write_tensor_data(gguf.quantize(values, kind))


def _values(tensor: Stored, parameters: Mapping[str, Tensor]) -> np.ndarray:
    """The values of a tensor in float32, in the file's order."""
    if tensor.parts:
        parts = [parameters[part].detach().to("cpu", torch.float32) for part in tensor.parts]
        values = tensor.change(torch.cat(parts))
    else:
        values = torch.tensor(tensor.fill, dtype=torch.float32).expand(tensor.shape)
    if tuple(values.shape) != tensor.shape:
        raise AssertionError(f"{tensor.name}: planned {tensor.shape}, made {tuple(values.shape)}")
    return np.ascontiguousarray(values.numpy())


def _require_new(targets: list[Path]) -> None:
    for target in targets:
        if target.exists():
            raise RunError(f"{target}: exists already, expected a new file")


def _move(pairs: list[tuple[Path, Path]]) -> None:
    """Moves files to their places: all of them or none."""
    moved: list[Path] = []
    try:
        for part, target in pairs:
            shutil.move(part, target)
            moved.append(target)
    except BaseException:
        for target in moved:
            with suppress(OSError):
                target.unlink()
        raise


def remarks(plan: Outline, dtype: Dtype) -> tuple[str, ...]:
    """Lines on what the file has that the user did not ask for."""
    import gguf

    lines, kinds = list(plan.remarks), {tensor.name: kind_of(tensor, dtype) for tensor in plan.tensors}
    if other := [t.name for t in plan.tensors if not t.precise and kinds[t.name].name != dtype]:
        whole, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[dtype]]
        lines.append(f"{dtype} takes rows of a multiple of {whole}: F16 instead for {_listed(other)}")
    empty = [t for t in plan.tensors if not t.parts and len(t.shape) > 1 and not t.precise]
    if count := sum(bytes_of(tensor, kinds[tensor.name]) for tensor in empty):
        lines.append(
            f"{plan.family} has sub-layers that the architecture lacks: "
            f"their zeros cost {count:,} bytes a step"
        )
    return tuple(lines)


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
