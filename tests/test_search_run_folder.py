import pytest

from operators.errors import RunError
from operators.files import write_whole
from search.run_folder import RunFolder, check_name, find_folder, new_folder


@pytest.mark.parametrize("name", ["a", "quick-2026.11.21_x", "A" * 64, "0"])
def test_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "-x", ".hidden", "a b", "a\n", "ä", "A" * 65, "a\x00"]
)
def test_a_name_that_would_leave_the_results_folder_is_refused(tmp_path, name):
    for use in (lambda: new_folder(tmp_path, name), lambda: find_folder(tmp_path, name)):
        with pytest.raises(RunError, match="expected 1 to 64 letters"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_exists_is_not_started_again(tmp_path):
    (tmp_path / "first").mkdir()
    with pytest.raises(RunError, match=r"exists already.*frontrunner resume first"):
        new_folder(tmp_path, "first")


def test_an_unknown_run_names_those_that_exist(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "ledger.db").touch()
    assert find_folder(tmp_path, "first").name == "first"
    with pytest.raises(RunError, match=r"unknown run 'second'.*: first"):
        find_folder(tmp_path, "second")
    with pytest.raises(RunError, match="none"):
        find_folder(tmp_path / "nowhere", "second")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "not bytes")
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_lock_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "driver.lock").mkdir()
    with (
        pytest.raises(RunError, match=r"driver\.lock: cannot be written: Is a directory"),
        RunFolder(tmp_path).driving(),
    ):
        pass
