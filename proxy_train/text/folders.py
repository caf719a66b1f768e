"""Finds the files of training text in a folder, and names everything else in it."""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from operators.base.errors import DataError
from proxy_train.text import data_repository as repository
from proxy_train.text.file_names import HIDDEN, held_out, not_anybodys_text
from proxy_train.text.formats import is_archive, kind_of, uncompressed

# Why a file or folder is not read. Each follows a count, as in "3 of validation or test text".
HELD_OUT = "of validation or test text"
OTHER_ENDING = "with an ending that is not read"
OTHER_ROWS = "that the saved dataset beside them does not name"
AGAIN = "reached a second time"
NO_FILE = "neither file nor folder"
MISSING = "missing of numbered files"

Identity = tuple[int, int]  # device and inode: equal where two paths lead to the same file or folder


@dataclass
class Contents:
    """What an entry of a source holds.

    files: files to read, in order.
    empty: names of files without a byte.
    not_read: (reason, name) of everything else.
    seen: files and folders that were reached.
    """

    files: list[Path] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    not_read: list[tuple[str, str]] = field(default_factory=list)
    seen: set[Identity] = field(default_factory=set)

    def add(self, path: Path, name: str) -> None:
        """Adds a file to read; one that is empty or was reached before is only noted.

        Raises DataError where the path leads nowhere.
        """
        identity = identity_of(path)
        if identity in self.seen:
            self.not_read.append((AGAIN, name))
        elif path.stat().st_size == 0:
            self.empty.append(name)
        else:
            self.files.append(path)
        self.seen.add(identity)


@dataclass(frozen=True)
class _Waiting:
    """A folder that is still to be searched, and the folders that it was reached through."""

    path: Path
    above: frozenset[Identity]


def walk(top: Path, contents: Contents) -> None:
    """Adds what a folder holds, to any depth and through links.

    Each file and folder is added once, however many paths lead to it.

    top: the folder.
    contents: changed in place.

    Raises DataError for what cannot be read (a broken link, a circle of links, a folder without permission),
    for an archive, for a damaged saved dataset, and where it is open which of several texts is meant, see
    `_require_one_text`.
    """
    files: list[Path] = []
    described: list[Path] = []
    with_splits: list[Path] = []
    # Links are followed last, so that a file in the source gets its own path and not that of a link to it.
    waiting, links = [_Waiting(top, frozenset())], list[_Waiting]()
    while waiting or links:
        here = (waiting or links).pop()
        identity = identity_of(here.path)
        if identity in here.above:
            raise DataError(f"{here.path}: a link to a folder that it lies in: such a circle has no end")
        if identity in contents.seen:
            contents.not_read.append((AGAIN, f"{here.path.relative_to(top.parent)}/"))
            continue
        contents.seen.add(identity)
        inside = _Folder(here.path, top, contents.not_read)
        files += inside.files
        with_splits += [here.path] if inside.has_splits else []
        described += [here.path] if inside.is_described else []
        for path in reversed(inside.folders):
            inner = _Waiting(path, here.above | {identity})
            (links if path.is_symlink() else waiting).append(inner)
    _require_one_text(top, with_splits)
    for folder in described:
        repository.require_one_configuration(folder, files)
    contents.not_read += [(MISSING, name) for name in _missing(files, top)]
    before = len(contents.files)
    for path in sorted(files, key=lambda path: (path.is_symlink(), path)):
        contents.add(path, str(path.relative_to(top)))
    contents.files[before:] = sorted(contents.files[before:])


class _Folder:
    """One folder, sorted into what is read, what is searched further, and the rest.

    files: paths to read.
    folders: paths to search.
    has_splits: whether the folder holds training text and text held out from it.
    is_described: whether it has a README.md.

    The rest is appended to the argument `not_read`.
    """

    def __init__(self, path: Path, top: Path, not_read: list[tuple[str, str]]) -> None:
        self._top, self._not_read = top, not_read
        names = _names(path)
        self.is_described = "README.md" in names
        kept = [name for name in names if not self._passed_over(path / name, not_anybodys_text(name))]
        folders, files = self._sorted_out(path, kept)
        _require_finished(path, names)
        if repository.is_cache_of_hub(folders):
            for name in ("blobs", "refs"):
                self._passed_over(path / name, HIDDEN if name in folders else None, "/")
            folders = [name for name in folders if name not in ("blobs", "refs")]
            repository.require_one_version(path / "snapshots", _names(path / "snapshots"))
        if repository.SPLITS in names:
            repository.require_one_split(path / repository.SPLITS)
            trains, held = False, set[str]()
        else:
            trains, held = held_out(folders, folders=True)
        trains_in_files, held_files = held_out(files, folders=False)
        self.has_splits = (trains or trains_in_files) and bool(held | held_files)
        if repository.DATASET in names:
            rows = repository.dataset_files(path / repository.DATASET)
            others = {name for name in files if name.endswith(".arrow")} - set(rows)
            files = [
                name
                for name in files
                if not self._passed_over(path / name, OTHER_ROWS if name in others else None)
            ]
            files = sorted({*files, *rows})
        self.folders = [
            path / name
            for name in folders
            if not self._passed_over(path / name, HELD_OUT if name in held else None, "/")
        ]
        self.files = [
            path / name
            for name in files
            if not self._passed_over(path / name, HELD_OUT if name in held_files else None)
        ]
        _require_no_twins(self.files)

    def _passed_over(self, path: Path, why: str | None, end: str = "") -> bool:
        """Notes a path that is not read, unless `why` is None; returns whether it did."""
        if why is not None:
            self._not_read.append((why, f"{path.relative_to(self._top)}{end}"))
        return why is not None

    def _sorted_out(self, path: Path, names: list[str]) -> tuple[list[str], list[str]]:
        """The names of folders, and the names of files that can be read."""
        folders, files = [], []
        for name in names:
            mode = status_of(path / name).st_mode
            if stat.S_ISDIR(mode):
                folders.append(name)
            elif not stat.S_ISREG(mode):
                self._passed_over(path / name, NO_FILE)
            elif is_archive(name):
                raise DataError(
                    f"{path / name}: an archive, which is not read: unpack it, or take it out of {self._top}"
                )
            elif kind_of(name) is None:
                self._passed_over(path / name, OTHER_ENDING)
            else:
                files.append(name)
        return folders, files


def status_of(path: Path) -> os.stat_result:
    """The status of what a path leads to. Raises DataError where it leads nowhere."""
    try:
        return path.stat()
    except OSError as error:
        link = f"a link to {path.readlink()}: " if path.is_symlink() else ""
        raise DataError(f"{path}: cannot be read: {link}{error.strerror}") from None


def identity_of(path: Path) -> Identity:
    status = status_of(path)
    return status.st_dev, status.st_ino


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None


def _require_one_text(top: Path, with_splits: list[Path]) -> None:
    """Raises DataError where several folders have splits of their own.

    They mostly are forms of one text, such as wikitext-2 and wikitext-103.
    """
    if len(with_splits) > 1:
        listed = ", ".join(map(str, sorted(with_splits)))
        raise DataError(
            f"{top}: {len(with_splits)} folders in it have training text beside validation or test text, "
            "as the configurations of a data set do: "
            f"expected one or some of them as the source, out of {listed}"
        )


def _require_finished(folder: Path, names: Iterable[str]) -> None:
    """Raises DataError for an unfinished download of aria2, which keeps its state beside the file."""
    present = set(names)
    for name in present:
        if name.endswith(".aria2") and (begun := name.removesuffix(".aria2")) in present:
            raise DataError(f"{folder / begun}: its download is not finished: {name} lies beside it")


def _require_no_twins(files: Iterable[Path]) -> None:
    """Raises DataError for a file that is there plain and compressed.

    Its text would be read twice, and might be in training and validation both.
    """
    plain: dict[str, Path] = {}
    for path in files:
        other = plain.setdefault(uncompressed(path.name)[0], path)
        if other is not path:
            raise DataError(
                f"{other}: its name differs from {path.name} beside it by the compression alone: "
                "expected one of them"
            )


_NUMBERED = re.compile(r"(\d{1,6})-of-(\d{1,6})(?!\d)")


def _missing(files: Iterable[Path], top: Path) -> list[str]:
    """The names of absent files of a numbered set, such as `train-00003-of-00004.parquet`."""
    present: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for path in files:
        name = str(path.relative_to(top))
        if match := list(_NUMBERED.finditer(name)):
            number, total = match[-1].span(1), match[-1].group(2)
            # A hash may follow, which differs by file, as in `train-00000-of-00004-a1b2c3d4e5f6a7b8.parquet`.
            rest = re.sub(r"^-[0-9a-f]{16}(?=\.)", "", name[match[-1].end() :])
            present[name[: number[0]], f"-of-{total}{rest}", number[1] - number[0]].add(match[-1].group(1))
    missing = []
    for (before, behind, digits), numbers in present.items():
        total = int(re.findall(r"\d+", behind)[0])
        first = 1 if total in map(int, numbers) else 0  # some sets are counted from 1
        have = set(map(int, numbers))
        missing += [
            f"{before}{number:0{digits}}{behind}"
            for number in range(first, first + total)
            if number not in have
        ]
    return missing
