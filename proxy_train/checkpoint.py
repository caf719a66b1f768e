"""A training that is under way, in one file: it is there as a whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from operators.base.errors import DataError, flat
from operators.base.files import whole_file


def write(
    path: Path, tensors: Mapping[str, Tensor], *, identity: Mapping[str, Any], progress: Mapping[str, Any]
) -> None:
    """Replaces the file by tensors (safetensors) with two JSON values in its header. Raises DataError where it cannot be written.

    identity: what the training is of, which `read` compares. A kill leaves the file of before, or this one.
    """
    header = {"identity": json.dumps(identity), "progress": json.dumps(progress)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        copied = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        with whole_file(path) as partial:
            save_file(copied, partial, metadata=header)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: the checkpoint cannot be written: {flat(error)}") from None


def read(path: Path, *, identity: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and progress, or None where there is no file. Raises DataError for a damaged one and one of another training."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            found, progress = json.loads(header["identity"]), json.loads(header["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: not a whole checkpoint ({flat(error)}); remove it to train from the start"
        ) from None
    expected = json.loads(json.dumps(identity))
    if found != expected:
        differing = sorted(
            key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
        )
        raise DataError(
            f"{path}: a checkpoint of another training: expected the same {', '.join(differing)}; name another file"
        )
    return tensors, dict(progress)
