"""The state of an unfinished training in one file, which is there as a whole or not at all."""

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
    """Writes a checkpoint; a kill leaves the earlier file or this one, each whole.

    path: the file (safetensors); its header holds the two JSON values.
    tensors: by name.
    identity: what training this is of; `read` compares it (JSON values by name).
    progress: how far the training is (JSON values by name).

    Raises DataError where the file cannot be written.
    """
    header = {"identity": json.dumps(identity), "progress": json.dumps(progress)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        copied = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        with whole_file(path) as partial:
            save_file(copied, partial, metadata=header)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: the checkpoint cannot be written: {flat(error)}") from None


def read(
    path: Path, *, identity: Mapping[str, Any] | None
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and progress of a checkpoint; None where there is no file.

    identity: what training it has to be of; None for any.

    Raises DataError for a file that is damaged or of another training.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            recorded, progress = json.loads(header["identity"]), json.loads(header["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: not a whole checkpoint ({flat(error)}); remove it to train from the start"
        ) from None
    expected = recorded if identity is None else json.loads(json.dumps(identity))
    if recorded != expected:
        differing = sorted(
            key for key in expected.keys() | recorded.keys() if expected.get(key) != recorded.get(key)
        )
        raise DataError(
            f"{path}: a checkpoint of another training: expected the same {', '.join(differing)}; "
            "name another file"
        )
    return tensors, dict(progress)
