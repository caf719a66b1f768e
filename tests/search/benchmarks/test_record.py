"""What a record says of the source that was measured."""

import shutil
import subprocess
from pathlib import Path

import pytest

from search.benchmarks import record

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    done = subprocess.run(
        ["git", *who, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the module in its folder, and another module elsewhere."""
    for name in ("search/benchmarks/record.py", "operators/model.py", "results/benchmarks/one.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(record, "__file__", str(tmp_path / "search/benchmarks/record.py"))
    return tmp_path


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    assert record.commit() == git(checkout, "rev-parse", "HEAD")[:12]


@pytest.mark.parametrize("name", ["search/benchmarks/record.py", "operators/model.py", "operators/new.py"])
def test_a_change_anywhere_in_the_source_is_told(checkout: Path, name: str) -> None:
    (checkout / name).write_text("changed")
    assert record.commit() == git(checkout, "rev-parse", "HEAD")[:12] + "+"


def test_new_results_are_no_change(checkout: Path) -> None:
    (checkout / "results/benchmarks/two.json").write_text("{}")
    (checkout / "results/benchmarks/one.json").write_text("{}")
    assert record.commit() == git(checkout, "rev-parse", "HEAD")[:12]


def test_outside_a_checkout_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    assert record.commit() == "unknown"
