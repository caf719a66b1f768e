"""Writes an architecture with its weights as a GGUF file, which llama.cpp runs."""

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.architecture import Architecture
from operators.base.errors import DataError, RunError
from operators.parameter_shapes import parameter_shapes
from operators.published.gguf_export.homes import outline
from operators.published.gguf_export.outline import Outline, Stored, Value
from operators.published.gguf_export.sizes import Dtype, bytes_of, kind_of
from operators.published.gguf_export.vocabulary import Vocabulary, padded

SHOWN = 3  # names in a message; the others are counted
# general.file_type, by which llama.cpp names the quantization.
FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}


@dataclass(frozen=True)
class Written:
    """A GGUF model on the disk.

    family: its `general.architecture`.
    paths: its file, or its parts in their order.
    remarks: lines for the user.
    """

    family: str
    paths: tuple[Path, ...]
    remarks: tuple[str, ...]


def write_gguf(
    architecture: Architecture,
    parameters: Mapping[str, Tensor],
    vocabulary: Vocabulary | None,
    to: Path,
    *,
    dtype: Dtype = "F16",
    context: int = 2048,
    split_bytes: int | None = None,
) -> Written:
    """Writes a GGUF file, or several parts: all of it or nothing.

    parameters: our weights by name. They are read one tensor at a time.
    vocabulary: None for tokens without text, as for a model that is only measured.
    to: a new file that ends in .gguf. Parts get `-00001-of-00003` before the ending.
    dtype: of the matrices. Vectors and short convolutions stay F32. With Q8_0 a matrix is F16 where its rows
        are no multiple of 32 long.
    context: tokens that the model was trained for; llama.cpp reads no more without being told.
    split_bytes: the most that the tensors of one part may take, unless a single one takes more; None for one
        file.

    Raises ArchitectureError where no GGUF model of llama.cpp holds the architecture, DataError for weights
    and a vocabulary that do not fit it, and RunError where the file exists or cannot be written, or the
    package gguf is missing.
    """
    _require_package(to)
    plan = outline(architecture)
    _require_weights(architecture, parameters)
    if vocabulary is not None and len(vocabulary.tokens) > architecture.vocabulary:
        raise DataError(
            f"vocabulary: expected at most {architecture.vocabulary} tokens, as the embedding has rows, "
            f"got {len(vocabulary.tokens)}"
        )
    if to.suffix != ".gguf":
        raise RunError(f"{to}: expected a name that ends in .gguf")
    kinds = {tensor.name: kind_of(tensor, dtype) for tensor in plan.tensors}
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as folder:
            writer = _writer(plan, kinds, Path(folder) / to.name, split_bytes)
            parts = writer.format_shard_names(Path(folder) / to.name)
            _require_new([to, *(to.parent / part.name for part in parts)])
            try:
                _add_metadata(writer, plan, architecture.name or to.stem, dtype, context)
                _add_vocabulary(writer, padded(vocabulary, architecture.vocabulary))
                _write(writer, plan, kinds, parameters)
            finally:
                writer.close()
            paths = _moved(parts, to.parent)
    except OSError as error:
        raise RunError(f"{to}: cannot be written: {error.strerror or error}") from None
    return Written(plan.family, paths, _remarks(plan, kinds, dtype))


def _require_package(to: Path) -> None:
    try:
        import gguf  # noqa: F401 - imported where it is used
    except ImportError as error:
        raise RunError(f"{to}: writing GGUF needs the package gguf (`pip install gguf`): {error}") from None


def _require_weights(architecture: Architecture, parameters: Mapping[str, Tensor]) -> None:
    """Raises DataError unless the weights are those of the architecture, by name and shape."""
    expected = {name: tuple(shape) for name, shape in parameter_shapes(architecture).items()}
    for name in sorted(expected.keys() | parameters.keys()):
        got = tuple(parameters[name].shape) if name in parameters else None
        if expected.get(name) != got:
            raise DataError(f"weight {name}: expected {expected.get(name) or 'none'}, got {got or 'none'}")


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


def _add_metadata(writer: Any, plan: Outline, name: str, dtype: Dtype, context: int) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[dtype])
    if dtype == "Q8_0":
        writer.add_quantization_version(2)  # of the package's blocks
    writer.add_context_length(context)
    for key, value in plan.keys.items():
        _add(writer, f"{plan.family}.{key}", value)


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


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.splitting)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    # llama.cpp needs a merge. This one never happens, as no text gives the token that ends a text.
    writer.add_token_merges(vocabulary.merges or [" ".join([vocabulary.tokens[vocabulary.end]] * 2)])
    # Without these two llama.cpp takes token 11, and stops there when it generates.
    writer.add_eos_token_id(vocabulary.end)
    writer.add_bos_token_id(vocabulary.end if vocabulary.begin is None else vocabulary.begin)
    writer.add_add_bos_token(vocabulary.puts_begin)
    writer.add_add_eos_token(vocabulary.puts_end)


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


def _moved(parts: list[Path], folder: Path) -> tuple[Path, ...]:
    """The written parts in their folder: all of them or none."""
    targets = [folder / part.name for part in parts]
    moved: list[Path] = []
    try:
        for part, target in zip(parts, targets, strict=True):
            shutil.move(part, target)
            moved.append(target)
    except BaseException:
        for target in moved:
            with suppress(OSError):
                target.unlink()
        raise
    return tuple(targets)


def _remarks(plan: Outline, kinds: Mapping[str, Any], dtype: Dtype) -> tuple[str, ...]:
    """Lines on what the file has that the user did not ask for."""
    import gguf

    lines = list(plan.remarks)
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
