"""The files that come with the program: configurations, and models of others.

In the repository they lie in `configs/`, and `operators/shipped` is a link to that folder. A wheel holds them
in the link's place, so that one path finds them in a checkout and in an installation.
"""

from importlib.resources import files
from pathlib import Path
from typing import Literal

Kind = Literal["configuration", "architecture", "vision-language model"]

FOLDER = Path(str(files("operators"))).resolve() / "shipped"
_WITHIN: dict[Kind, str] = {
    "configuration": ".",
    "architecture": "architectures",
    "vision-language model": "vision_language",
}
KINDS: tuple[Kind, ...] = tuple(_WITHIN)
"""A name is looked for in this order; no two files share one."""


def names(kind: Kind) -> tuple[str, ...]:
    """The names of the shipped files of that kind, sorted: those of the files without `.yaml`."""
    return tuple(sorted(file.stem for file in (FOLDER / _WITHIN[kind]).glob("*.yaml")))


def find(path: Path, kind: Kind) -> Path | None:
    """The shipped file that a name means, in capitals or not; None where `path` is no such name."""
    name = str(path).lower()
    return FOLDER / _WITHIN[kind] / f"{name}.yaml" if name in names(kind) else None


def hint(path: Path) -> str:
    """What to add to the message that a file is missing, where a shipped file has its name."""
    known = path.suffix == ".yaml" and any(path.stem.lower() in names(kind) for kind in KINDS)
    return f"; the shipped file is named {path.stem.lower()}, without a folder and an ending" if known else ""


def summary(file: Path) -> str:
    """The first line of a shipped file, which is a comment that explains the file's purpose."""
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
