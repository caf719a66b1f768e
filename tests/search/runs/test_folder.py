import os
import shlex
from pathlib import Path

import pytest

from operators.base.errors import RunError
from search.config.name import check_name
from search.runs.folder import RunFolder, find_folder, new_folder


@pytest.mark.parametrize("name", ["a", "quick-2026.11.21_x", "A" * 64, "0"])
def test_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "-x", ".hidden", "a b", "a\n", "ä", "A" * 65, "a\x00"]
)
def test_a_name_that_would_leave_the_results_folder_is_refused(tmp_path, name):
    with pytest.raises(RunError, match="expected 1 to 64 letters"):
        new_folder(tmp_path, name)
    with pytest.raises(
        RunError, match=r"expected 1 to 64 letters|unknown run .* has no ledger\.db, expected one of"
    ):
        find_folder(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_exists_is_not_started_again(tmp_path):
    (tmp_path / "first").mkdir()
    with pytest.raises(RunError, match=r"exists already.*frontrunner resume first"):
        new_folder(tmp_path, "first")


def test_a_results_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"unknown run 'a': .* in .*/file, which is not a folder$"):
        find_folder(tmp_path / "file", "a")
    with pytest.raises(RunError, match=r"unknown run 'a': .* in .*/absent, which does not exist$"):
        find_folder(tmp_path / "absent", "a")


def test_an_unknown_run_names_those_that_exist(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "ledger.db").touch()
    assert find_folder(tmp_path, "first").name == "first"
    with pytest.raises(RunError, match=r"unknown run 'second'.*: first"):
        find_folder(tmp_path, "second")
    with pytest.raises(RunError, match=r"nowhere, which does not exist$"):
        find_folder(tmp_path / "nowhere", "second")


def test_a_run_is_found_by_its_name_or_by_a_path_to_its_folder(tmp_path, monkeypatch):
    results = tmp_path / "results"
    for name in ("first", "second run"):
        (results / name).mkdir(parents=True)
        (results / name / "ledger.db").touch()
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "ledger.db").touch()
    monkeypatch.chdir(tmp_path)
    assert find_folder(Path("results"), "first").path == Path("results/first")  # before the folder here
    for text in ("results/first", "results/first/", "./results/../results/first", f"{results}/first"):
        assert find_folder(Path("elsewhere"), text).path.resolve() == results / "first"
    assert find_folder(Path("elsewhere"), "first").path == Path("first")
    monkeypatch.chdir(results / "first")
    assert find_folder(Path("elsewhere"), ".").path == results / "first"
    odd = find_folder(Path("elsewhere"), "../second run")
    assert odd.command("show", 3) == "frontrunner show '../second run' 3"
    with pytest.raises(RunError, match=r"unknown run '\./x': \./x has no ledger\.db, expected one of"):
        find_folder(results, "./x")


def test_the_latest_of_many_runs_are_named_and_how_many_there_are(tmp_path):
    for number in range(23):
        (tmp_path / f"r{number}").mkdir()
        ledger = tmp_path / f"r{number}" / "ledger.db"
        ledger.touch()
        os.utime(ledger, (1000 - number, 1000 - number))
    with pytest.raises(RunError, match=r": r7, r6, r5, r4, r3, r2, r1, r0 \(the latest 8 of 23\)$"):
        find_folder(tmp_path, "other")


def test_what_is_to_be_typed_can_be_typed(tmp_path):
    assert shlex.split(RunFolder(tmp_path / "a b" / "r").command("export", 3))[3:] == [
        "3",
        "--results",
        f"{tmp_path}/a b",
    ]


def test_a_lock_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "driver.lock").mkdir()
    with (
        pytest.raises(RunError, match=r"driver\.lock: cannot be written: Is a directory"),
        RunFolder(tmp_path).driving(),
    ):
        pass


def test_the_lock_names_its_holder_and_nobody_before(tmp_path):
    (tmp_path / "driver.lock").write_text("12345678901234567890")
    with RunFolder(tmp_path).driving():
        assert (tmp_path / "driver.lock").read_text() == str(os.getpid())
