"""Decides by the name of a file or folder whether it is text, and of which split."""

import re
from collections.abc import Iterable

from proxy_train.text.formats import kind_of, uncompressed

# Why a file or folder is not read. Each follows a count, as in "3 unfinished downloads".
HIDDEN = "hidden, or of the system, an editor or a program"
UNFINISHED = "unfinished downloads"
ABOUT = "about the text, not text"

_UNFINISHED = (".part", ".partial", ".incomplete", ".tmp", ".temp", ".crdownload", ".download", ".aria2")
_COPIES = ("~", ".bak", ".orig", ".swp", ".swo", ".lock")
_SYSTEM = {"thumbs.db", "desktop.ini", "lost+found", "node_modules"}

# Files of these names describe a data set, a model or a program. `datasets` and the
# Hub skip several of them too.
_ABOUT = re.compile(
    r"readme([-._]\w+)*"
    r"|(licen[cs]e|copying|notice|changelog|changes|contributing|contributors|authors|citation"
    r"|code_of_conduct|cmakelists|robots|(md5|sha\d+)sums?|checksums?)"
    r"([-._](\w\w|[\d.]+|mit|bsd|apache|gpl))*(\.(txt|text|md|rst))?"
    r"|(requirements|constraints)([-_.]\w+)?\.txt|(vocab|merges|version)\.txt"
    r"|((.+[-_.])?(info|infos|index|manifest|meta|metadata|schema|stats|statistics)"
    r"|dataset_dict|state|config|.+_config"
    r"|croissant|datapackage|package|package-lock|tokenizer|vocab|added_tokens|special_tokens_map)\.json"
    r"|dummy_data\.zip"
)
_CACHE_OF_DATASETS = re.compile(r"(cache-[0-9a-f]+|tmp\w+)(_\d+_of_\d+)?\.arrow")


def not_anybodys_text(name: str) -> str | None:
    """The reason to skip a file or folder of this name in a source; None where it is not skipped.

    Hidden are names that begin with a dot, and folders of programs, as `__MACOSX`,
    `_delta_log` and `_temporary`.
    """
    small = name.lower()
    if small.endswith(_UNFINISHED):
        return UNFINISHED
    if name.startswith((".", "__", "~$")) or small.endswith(_COPIES) or small in _SYSTEM:
        return HIDDEN
    if re.fullmatch(
        r"#.*#|_(success|metadata|common_metadata|delta_log|temporary|committed_.*|started_.*)", small
    ):
        return HIDDEN
    if _CACHE_OF_DATASETS.fullmatch(small):
        return HIDDEN
    if _ABOUT.fullmatch(uncompressed(small)[0]):
        return ABOUT
    return None


# The names of splits that the library `datasets` knows, and two more. They count where no letter stands
# beside them: `c4-validation.00000`, `my_train_file` and `test1` have one, `latest` and `trainings` none.
_TRAIN = ("train", "training")
_HELD_OUT = (
    "validation",
    "valid",
    "val",
    "dev",
    "test",
    "testing",
    "eval",
    "evaluation",
    "heldout",
    "holdout",
)
_SPLIT = re.compile(rf"(?<![^\W\d_])({'|'.join((*_TRAIN, *_HELD_OUT))})(?![^\W\d_])", re.IGNORECASE)


def held_out(names: Iterable[str], *, folders: bool) -> tuple[bool, set[str]]:
    """Whether one of a folder's names is of training text, and which ones are of validation or test text.

    A .txt file is often one document, and a folder may have any name. So `driving-test.txt` is held out only
    where a neighbour has the same name with `train` in it. `test.txt` and `test-00001.txt` are always held
    out. So is a file of many documents (every format but .txt) with the name of such a split in it.

    names: files or folders in one folder.
    folders: whether they are folders.
    """
    marked = {name: marks for name in names if (marks := _marks(name, folders=folders))}
    trained = {
        _shape(name, folders=folders) for name, marks in marked.items() if not marks.isdisjoint(_TRAIN)
    }
    held = set()
    for name, marks in marked.items():
        if not marks.isdisjoint(_TRAIN):
            continue
        shape = _shape(name, folders=folders)
        certain = not folders and (kind := kind_of(name)) is not None and kind.format != "text"
        if certain or shape in trained or re.fullmatch(r"\*([\W_]*(#|of))*", shape):
            held.add(name)
    return bool(trained), held


def _marks(name: str, *, folders: bool) -> set[str]:
    """The names of splits in a name."""
    return {word.lower() for word in _SPLIT.findall(_stem(name, folders=folders))}


def _shape(name: str, *, folders: bool) -> str:
    """The name with `*` for the word of a split and `#` for numbers: equal for the splits of one text."""
    return re.sub(r"\d+", "#", _SPLIT.sub("*", _stem(name, folders=folders))).lower()


def _stem(name: str, *, folders: bool) -> str:
    kind = None if folders else kind_of(name)
    return name[: -len(kind.ending)] if kind else name
