"""Turns a published model into a folder that `search.export.load` reads."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from operators import Architecture
from operators.errors import DataError, RunError
from operators.files import whole_folder
from operators.published import describe, fitted
from operators.published.gguf_file import GgufFile
from operators.published.safetensors_folder import SafetensorsFolder
from search.gguf_tokenizer import gguf_tokenizer


@dataclass(frozen=True)
class Imported:
    """What was written. without_tokenizer: why there is no tokenizer.json, or None."""

    architecture: Architecture
    parameters: int
    without_tokenizer: str | None


def import_model(source: Path, to: Path) -> Imported:
    """Writes architecture.yaml, model.safetensors and tokenizer.json of a Hugging Face folder or a GGUF file into `to`: all or nothing.

    `to` is a new or empty folder. Raises ArchitectureError for a model that we cannot express, DataError for files that are
    missing, damaged or do not fit, RunError for a folder in use.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RunError(f"{to}: exists already, expected a folder that is new or empty; --to names another")
    tensors = _opened(source)
    where = source / "config.json" if isinstance(tensors, SafetensorsFolder) else source
    published = describe(tensors.config, name=model_name(source), where=str(where))
    weights = fitted(published, tensors, where=source)
    with whole_folder(to) as partial:
        (partial / "architecture.yaml").write_text(published.architecture.to_yaml(), encoding="utf-8")
        save_file(
            {name: tensor.contiguous() for name, tensor in weights.items()}, partial / "model.safetensors"
        )
        (partial / "model.safetensors").chmod(0o644)  # it is written through a private temporary file
        without = _write_tokenizer(tensors, partial / "tokenizer.json")
    return Imported(published.architecture, sum(tensor.numel() for tensor in weights.values()), without)


def model_name(source: Path) -> str:
    """What an imported model is called: the folder, or the file without its ending."""
    return source.resolve().stem if source.is_file() else source.resolve().name


def _opened(source: Path) -> SafetensorsFolder | GgufFile:
    if source.is_dir():
        return SafetensorsFolder(source)
    if source.is_file() and source.suffix.lower() == ".gguf":
        return GgufFile(source)
    found = "a file of another kind" if source.exists() else "nothing there"
    raise DataError(f"{source}: expected a Hugging Face folder or a .gguf file, found {found}")


def _write_tokenizer(tensors: SafetensorsFolder | GgufFile, path: Path) -> str | None:
    """Writes tokenizer.json -> None, or the reason why there is none."""
    if isinstance(tensors, GgufFile):
        made = gguf_tokenizer(tensors)
        if isinstance(made, str):
            return made
        made.save(str(path))
        return None
    source = tensors.folder / "tokenizer.json"
    if not source.is_file():
        return f"{tensors.folder} has no tokenizer.json"
    shutil.copyfile(source, path)
    return None
