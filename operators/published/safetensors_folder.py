"""Reads a folder as `transformers` saves it: config.json and safetensors files, never pickled weights."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from operators.base.errors import DataError
from operators.published.json_file import read_mapping

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
OTHERS = {
    "*.safetensors": "transformers does not take that for the model either; if it is the model, rename it",
    "*.gguf": "it is read when it is named itself",
    **dict.fromkeys(
        ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.bin.index.json"),
        "pickled weights are not read, because they can run code",
    ),
}
"""Files that may hold weights, and why they are not read."""


class SafetensorsFolder(Mapping[str, Tensor]):
    """The tensors of a folder by name; each is read (mapped from its file) when it is asked for.

    The choice of the model's files is that of `transformers`. Attributes: `config` is the content of
    config.json, `remarks` has lines for the user about that choice.

    Raises DataError for a folder that is not whole, or of another layout.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remarks: list[str] = []
        _refuse_other_layouts(folder)
        self.config = read_mapping(folder / "config.json")
        self._open: dict[str, Any] = {}
        self._files = self._whole() if self._has(WHOLE) else self._shards()

    def _has(self, name: str) -> bool:
        path = self.folder / name
        if path.is_symlink() and not path.exists():  # an unfinished download in the Hub's cache
            raise DataError(f"{path}: a link to {path.readlink()}, which is not there")
        return path.is_file()

    def _whole(self) -> dict[str, str]:
        if (self.folder / INDEX).exists():
            self.remarks.append(
                f"{WHOLE} is the model, as for transformers; {INDEX} beside it and its files are not read"
            )
        return dict.fromkeys(self._handle(WHOLE).keys(), WHOLE)

    def _shards(self) -> dict[str, str]:
        if not self._has(INDEX):
            raise self._no_weights()
        index = self.folder / INDEX
        weight_map = read_mapping(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise DataError(f"{index}: expected weight_map, a mapping from tensors to files")
        files: dict[str, str] = {}
        for file in sorted(set(weight_map.values())):
            if Path(file).name != file or not self._has(file):
                raise DataError(f"{index}: names {file}, which is not a file in that folder")
            for name in self._handle(file).keys():  # noqa: SIM118 - a handle is no mapping
                if name in files:
                    raise DataError(
                        f"{self.folder}: {name} is in {files[name]} and in {file}, expected in one"
                    )
                files[name] = file
        for name, file in weight_map.items():
            if files.get(name) != file:
                raise DataError(f"{index}: {name} is not in {file}, where this index puts it")
        return files

    def _no_weights(self) -> DataError:
        expected = f"{self.folder}: expected {WHOLE} or {INDEX}, found"
        for pattern, why in OTHERS.items():
            if names := sorted(file.name for file in self.folder.glob(pattern)):
                return DataError(f"{expected} {names[0]}: {why}")
        return DataError(f"{expected} neither")

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


def _refuse_other_layouts(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise DataError(
            f"{folder}: adapter_config.json makes it an adapter of another model, "
            "expected the model with the adapter merged"
        )
    snapshots = folder / "snapshots"
    if not (folder / "config.json").exists() and snapshots.is_dir():
        inside = sorted(path for path in snapshots.iterdir() if path.is_dir())
        named = ", ".join(str(path) for path in inside[:3]) or f"a folder in {snapshots}, which is empty"
        raise DataError(
            f"{folder}: the top of a folder in the Hub's cache, expected a snapshot in it: {named}"
        )
