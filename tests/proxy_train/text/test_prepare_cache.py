"""Text is prepared again where something has changed, and only there."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from operators.base.errors import DataError
from proxy_train.text import prepare as prepare_module
from proxy_train.text.corpus import Corpus
from proxy_train.text.prepare import prepare
from tests.helpers.speeches import decoded_all, small, training_ids


@pytest.fixture
def corpus(source: str, tmp_path: Path) -> Corpus:
    return prepare(small(source), cache=tmp_path / "cache")


def test_the_second_time_comes_from_the_cache(corpus: Corpus, source: str) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in corpus.folder.iterdir()}
    assert prepare(small(source), cache=corpus.folder.parent) == corpus
    assert {path.name: path.stat().st_mtime_ns for path in corpus.folder.iterdir()} == before


def test_other_settings_or_contents_are_another_corpus(corpus: Corpus, source: str) -> None:
    cache = corpus.folder.parent
    others = [
        prepare(small(source, vocabulary=290), cache=cache),
        prepare(small(source, validation_fraction=0.3), cache=cache),
    ]
    with (Path(source) / "000.txt").open("a") as file:
        file.write("one more line")
    others.append(prepare(small(source), cache=cache))
    assert len({corpus.digest, *(other.digest for other in others)}) == 4
    assert len({corpus.folder, *(other.folder for other in others)}) == 4


def test_where_the_text_lies_does_not_matter(corpus: Corpus, source: str, tmp_path: Path) -> None:
    moved = Path(source).rename(tmp_path / "elsewhere")
    assert prepare(small([str(moved)]), cache=corpus.folder.parent) == corpus


def test_a_corpus_travels_as_a_small_pickle(corpus: Corpus) -> None:
    raw = pickle.dumps(corpus)
    assert len(raw) < 1000
    assert (training_ids(pickle.loads(raw)) == training_ids(corpus)).all()  # noqa: S301


@pytest.mark.parametrize(
    "name", ["train-00000.bin", "validation.bin", "token_bytes.bin", "tokenizer.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_cache_is_built_again(corpus: Corpus, source: str, name: str, damage: str) -> None:
    path = corpus.folder / name
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else bytes([whole[0] ^ 1]) + whole[1:])
    assert prepare(small(source), cache=corpus.folder.parent) == corpus
    assert path.read_bytes() == whole
    assert {path.name for path in corpus.folder.parent.iterdir()} == {
        corpus.folder.name,
        f"{corpus.folder.name}.lock",
    }


def test_an_unchanged_source_is_surveyed_once(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in Path(source).rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    corpus = prepare(small(source), cache=tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "survey", None)
        assert prepare(small(source), cache=tmp_path / "cache") == corpus
    changed = Path(source) / "001.txt"
    changed.write_bytes(changed.read_bytes().replace(b"number 1.", b"number X."))  # of the same size
    assert prepare(small(source), cache=tmp_path / "cache").digest != corpus.digest


def test_a_change_that_the_times_of_files_hide_is_found_and_forgotten(source: str, tmp_path: Path) -> None:
    for path in Path(source).rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    prepare(small(source), cache=tmp_path / "cache")
    changed = Path(source) / "001.txt"
    changed.write_bytes(changed.read_bytes().replace(b"number 1.", b"number X."))
    os.utime(changed, (1e9, 1e9))
    with pytest.raises(DataError, match="the text changed while it was read; start again"):
        prepare(small(source, vocabulary=290), cache=tmp_path / "cache")
    assert any(
        "number X." in text
        for text in decoded_all(prepare(small(source, vocabulary=290), cache=tmp_path / "cache"))
    )


def test_a_source_that_changes_while_it_is_read_is_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = prepare_module.write_shards

    def changed_before(*arguments: Any, number: int) -> Any:
        (Path(source) / "000.txt").write_text("another text")
        return write(*arguments, number=number)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_shards", changed_before)
        with pytest.raises(DataError, match="the text changed while it was read; start again"):
            prepare(small(source), cache=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert "another text" in decoded_all(prepare(small(source), cache=tmp_path / "cache"))


def test_two_processes_may_prepare_at_once(source: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from proxy_train.text.data import DataSettings, prepare\n"
        "print('ready', flush=True); input()\n"
        "settings = DataSettings(source=sys.argv[1], vocabulary=300, validation_fraction=0.2)\n"
        "print(prepare(settings, cache=Path(sys.argv[2])).digest)"
    )
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", code, source, str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        ours = prepare(small(source), cache=cache)
        assert other.stdout.read().strip() == ours.digest
    assert other.returncode == 0
    assert [path for path in cache.iterdir() if path.is_dir()] == [ours.folder]


def test_the_cache_is_the_users(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert prepare(small(source)).folder.parent == tmp_path / "xdg" / "frontrunner"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert prepare(small(source)).folder.parent == tmp_path / "home" / ".cache" / "frontrunner"
