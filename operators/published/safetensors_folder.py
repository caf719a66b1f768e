"""A folder as `transformers` saves it: config.json and weights in one or several safetensors files. Nothing pickled is read."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from operators.errors import DataError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class SafetensorsFolder(Mapping[str, Tensor]):
    """The tensors of a folder by name; each is read (mapped from its file) when it is asked for. Raises DataError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _read_json(folder / "config.json")
        self._open: dict[str, Any] = {}
        self._files = self._index() if (folder / INDEX).exists() else self._whole()

    def _whole(self) -> dict[str, str]:
        if (self.folder / WHOLE).is_file():
            return dict.fromkeys(self._handle(WHOLE).keys(), WHOLE)
        expected = f"expected {WHOLE} or {INDEX}"
        if pickled := sorted(file.name for pattern in PICKLED for file in self.folder.glob(pattern)):
            raise DataError(
                f"{self.folder}: {expected}, found {pickled[0]}: pickled weights are not read, because they can run code"
            )
        raise DataError(f"{self.folder}: {expected}, found neither")

    def _index(self) -> dict[str, str]:
        weight_map = _read_json(self.folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise DataError(f"{self.folder / INDEX}: expected weight_map, a mapping from tensors to files")
        for file in sorted(set(weight_map.values())):
            if Path(file).name != file or not (self.folder / file).is_file():
                raise DataError(f"{self.folder / INDEX}: names {file}, which is not a file in that folder")
        return weight_map

    def _handle(self, file: str) -> Any:
        if file not in self._open:
            try:
                self._open[file] = safe_open(self.folder / file, framework="pt")
            except (SafetensorError, OSError) as error:
                raise DataError(f"{self.folder / file}: not a safetensors file: {error}") from None
        return self._open[file]

    def __getitem__(self, name: str) -> Tensor:
        file = self._files[name]
        try:
            tensor: Tensor = self._handle(file).get_tensor(name)
        except SafetensorError as error:
            raise DataError(f"{self.folder / file}: {name} cannot be read: {error}") from None
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a mapping, got {type(value).__name__}")
    return value
