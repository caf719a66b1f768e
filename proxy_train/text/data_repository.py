"""Reads what the library `datasets` and the Hugging Face Hub write beside text."""

import fnmatch
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import yaml

from operators.base.errors import DataError
from proxy_train.text.formats import kind_of

# `datasets` writes the first beside the .arrow files of a dataset, the second into
# a folder of several datasets.
DATASET, SPLITS = "state.json", "dataset_dict.json"


def dataset_files(state: Path) -> list[str]:
    """The .arrow files that a dataset's state names; others in its folder are caches of the library.

    state: the file DATASET of the dataset.

    Raises DataError where the file is no such state, or the dataset is a selection of its rows.
    """
    content = _json_object(state)
    if content.get("_indices_data_files"):
        raise DataError(
            f"{state}: the dataset is a selection of its rows: "
            "save it again after `dataset.flatten_indices()`"
        )
    try:
        names = [str(file["filename"]) for file in content["_data_files"]]
    except (KeyError, TypeError):
        names = [""]
    if any(
        Path(name).name != name or (kind := kind_of(name)) is None or kind.format != "arrow" for name in names
    ):
        raise DataError(
            f'{state}: expected the state of a saved dataset, with names of .arrow files under "_data_files"'
        )
    return names


def require_one_split(splits: Path) -> None:
    """Raises DataError where the file SPLITS of a saved dataset names several splits."""
    names = _json_object(splits).get("splits")
    if isinstance(names, list) and len(names) > 1:
        paths = ", ".join(str(splits.parent / str(name)) for name in names)
        raise DataError(
            f"{splits.parent}: a dataset with {len(names)} splits: expected one of {paths} as the source"
        )


def is_cache_of_hub(folders: Collection[str]) -> bool:
    """Whether a folder with these subfolders is the place where the Hub's client keeps a repository."""
    return "snapshots" in folders and ("blobs" in folders or "refs" in folders)


def require_one_version(snapshots: Path, names: Iterable[str]) -> None:
    """Raises DataError where several versions of a repository are kept side by side."""
    versions = [str(snapshots / name) for name in names if not name.startswith(".")]
    if len(versions) > 1:
        raise DataError(
            f"{snapshots}: {len(versions)} versions of one repository: "
            f"expected one of {', '.join(versions)} as the source"
        )


def require_one_configuration(folder: Path, files: Iterable[Path]) -> None:
    """Raises DataError where files of several configurations of a data repository would be read.

    folder: the repository; its README.md names the configurations.
    files: the files that are going to be read.
    """
    inside = {path.relative_to(folder).as_posix() for path in files if path.is_relative_to(folder)}
    present = {}
    for name, patterns in _configurations(folder / "README.md"):
        members = {path for path in inside for pattern in patterns if fnmatch.fnmatchcase(path, pattern)}
        if members:
            present[name] = frozenset(members)
    if len(set(present.values())) > 1:
        first = ", ".join(f"{name} ({min(members)})" for name, members in sorted(present.items())[:10])
        raise DataError(
            f"{folder}: a data set with {len(present)} configurations, by its README.md: "
            f"expected the folder or files of one as the source; {first}"
        )


def _configurations(readme: Path) -> list[tuple[str, list[str]]]:
    """Name and file patterns of each configuration in the head of a README.md, if it has such a head."""
    configs = head(readme).get("configs")
    return [
        (str(config.get("config_name")), _patterns(config.get("data_files")))
        for config in (configs if isinstance(configs, list) else [])
        if isinstance(config, dict)
    ]


def head(readme: Path) -> dict[str, Any]:
    """The mapping at the head of a data set's README.md; empty where it has none. Raises DataError."""
    try:
        lines = readme.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{readme}: cannot be read: {error.strerror}") from None
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return {}
    try:
        content = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _patterns(data_files: Any) -> list[str]:
    """The patterns in an entry: a pattern, a list of entries, or an object with an entry under `path`."""
    if isinstance(data_files, str):
        return [data_files.removeprefix("./")]
    if isinstance(data_files, dict):
        return _patterns(data_files.get("path"))
    return (
        [pattern for item in data_files for pattern in _patterns(item)]
        if isinstance(data_files, list)
        else []
    )


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    return content if isinstance(content, dict) else {}
