"""Files and folders are written whole or not at all, also on a full disk and after an interrupt."""

import errno
import os
from pathlib import Path

import pytest

from operators.base.errors import RunError
from operators.base.files import whole_folder, write_whole

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    for content in (b"a longer old one", b"new", b""):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise FULL

    path = tmp_path / "file"
    write_whole(path, b"old")
    monkeypatch.setattr(step, fail)
    with pytest.raises(RunError, match=r"file: cannot be written: No space left on device$"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_in_the_middle_of_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves behind, the next writing takes away."""

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    write_whole(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    write_whole(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_appears_when_it_is_full(tmp_path: Path, empty: bool) -> None:
    path = tmp_path / "deep" / "folder"
    if empty:
        path.mkdir(parents=True)
    with whole_folder(path) as folder:
        (folder / "a").write_text("first")
        assert not (path / "a").exists()
        (folder / "b").write_text("second")
    assert {file.name: file.read_text() for file in path.iterdir()} == {"a": "first", "b": "second"}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_a_folder_that_was_not_finished_is_gone(tmp_path: Path, error: BaseException) -> None:
    def fill() -> None:
        with whole_folder(tmp_path / "folder") as folder:
            (folder / "a").write_text("first")
            raise error

    with pytest.raises(type(error)):
        fill()
    assert list(tmp_path.iterdir()) == []
