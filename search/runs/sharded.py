"""Writes tensors as safetensors files: one, or several with an index where one would be too large."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from operators.published.safetensors_folder import INDEX, WHOLE

LARGEST = 5_000_000_000  # bytes of a file, as in `transformers`


def save(tensors: Mapping[str, Tensor], folder: Path, *, largest: int = LARGEST) -> None:
    """Writes the tensors into a folder.

    largest: bytes of a file at most, unless one tensor is larger.

    Raises OSError where they cannot be written.
    """
    shards = split(tensors, largest)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WHOLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        # transformers asks for the format.
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # it is written through a private temporary file
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def split(tensors: Mapping[str, Tensor], largest: int) -> list[list[str]]:
    """The names of the tensors of each file, in order."""
    shards: list[list[str]] = [[]]
    held = 0
    for name, tensor in tensors.items():
        if shards[-1] and held + tensor.nbytes > largest:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += tensor.nbytes
    return shards
