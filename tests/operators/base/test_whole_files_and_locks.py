"""Files that are whole or not there, and locks on files."""

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from operators.base.errors import RunError
from operators.base.files import locked, whole_file, write_whole


def test_a_file_is_replaced_only_when_it_is_whole_and_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "file", list[bytes]()
    path.write_bytes(b"old")

    def fsync(descriptor: int) -> None:
        assert path.read_bytes() == b"old"
        synced.append(os.pread(descriptor, 9, 0))

    monkeypatch.setattr(os, "fsync", fsync)
    with whole_file(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert (synced, path.read_bytes(), list(tmp_path.iterdir())) == ([b"new"], b"new", [path])


@pytest.mark.parametrize("apart", [False, True])
def test_what_goes_wrong_leaves_the_old_file_and_nothing_else(tmp_path: Path, apart: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with whole_file(path, apart=apart) as partial:
            partial.write_bytes(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(FileNotFoundError), whole_file(path, apart=apart):
        pass  # nothing was written
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def test_two_writers_of_one_file_do_not_mix_when_they_are_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    pid = os.getpid()
    with whole_file(path, apart=True) as first:
        first.write_bytes(b"first")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "getpid", lambda: pid + 1)
            with whole_file(path, apart=True) as second:
                second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"


@pytest.mark.parametrize("name", ["file/below", "null\0"])
def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written: ") as caught:
        write_whole(tmp_path / name, b"")
    assert "\n" not in str(caught.value)


def _hold(path: Path, shared: bool, pipe: Connection) -> None:
    with locked(path, shared=shared):
        pipe.send("held")
        pipe.recv()


@pytest.mark.parametrize(
    ("theirs", "ours", "free"),
    [(False, False, False), (False, True, False), (True, False, False), (True, True, True)],
)
def test_a_lock_is_for_one_process_or_for_all_that_share_it(
    tmp_path: Path, theirs: bool, ours: bool, free: bool
) -> None:
    path = tmp_path / "lock"
    path.write_text("kept")
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(path, theirs, there))
    process.start()
    try:
        assert here.recv() == "held"
        if free:
            with locked(path, shared=ours, wait_s=0):
                pass
        else:
            with pytest.raises(BlockingIOError), locked(path, shared=ours, wait_s=0.01):
                pytest.fail("two have it")
    finally:
        here.send("let go")
        process.join()
    with locked(path, shared=ours, wait_s=0) as file:  # released with the process
        file.seek(0)
        assert file.read() == "kept"


def test_a_shared_lock_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "lock", shared=True):
        pytest.fail("there is nothing to lock")
    assert list(tmp_path.iterdir()) == []
