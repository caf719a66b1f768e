"""Folders of prepared data that two processes want at once."""

from pathlib import Path

from operators.base.errors import DataError
from proxy_train.cache import cached


def test_what_another_process_has_built_meanwhile_is_not_built_again(tmp_path: Path) -> None:
    opened: list[Path] = []

    def open_later(folder: Path) -> str:
        opened.append(folder)
        if len(opened) == 1:
            raise DataError("missing")
        return "whole"

    def build(folder: Path) -> None:
        raise AssertionError(f"{folder} is built")

    folder = tmp_path / "data"
    assert cached(folder, open_later, build, what="text") == "whole"
    assert opened == [folder, folder]
