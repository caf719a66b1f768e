"""What a kill, a full disk or damage may leave of prepared text, and that the next start goes on from there."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from operators.base.errors import DataError
from proxy_train.text import prepare as prepare_module
from proxy_train.text.corpus import Corpus, open_corpus
from proxy_train.text.prepare import prepare, prepared
from proxy_train.text.tokenizer import train_tokenizer
from tests.helpers.speeches import SMALL_SHARD, contents, small


@pytest.fixture
def corpus(source: str, tmp_path: Path) -> Corpus:
    return prepare(small(source), cache=tmp_path / "cache")


@pytest.mark.parametrize("finished", [0, 1, 2, 5])
def test_preparing_goes_on_after_a_failure(
    source: str, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    """The disk is full after so many shards; the next start writes the others, and the result is what it would have been."""
    wanted = contents(prepare(small(source), cache=tmp_path / "other"))
    cache, write = tmp_path / "cache", prepare_module._save

    def save(folder: Path, manifest: object) -> None:
        if len(manifest.shards) > finished:  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")
        write(folder, manifest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_save", save)
        with pytest.raises(DataError, match="cannot be written: No space left on device"):
            prepare(small(source), cache=cache)
    assert not prepared(small(source), cache=cache).exists()
    with pytest.raises(DataError, match="interrupted"):
        open_corpus(next(cache.glob(".building-*")))
    trained = []
    monkeypatch.setattr(prepare_module.bpe, "train_tokenizer", lambda *_: trained.append(1))
    corpus = prepare(small(source), cache=cache)
    assert contents(corpus) == wanted
    assert not trained
    assert not list(cache.glob(".building-*"))


def test_preparing_goes_on_after_a_kill(source: str, tmp_path: Path, small_shards: None) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from proxy_train.text import shards, prepare as p; from proxy_train.text.data_settings import DataSettings\n"
        f"shards.SHARD_TOKENS = {SMALL_SHARD}; save = p._save\n"
        "def dying(folder, manifest):\n"
        "    save(folder, manifest)\n"
        "    if len(manifest.shards) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "p._save = dying\n"
        "p.prepare(DataSettings(source=sys.argv[1], vocabulary=300, validation_fraction=0.2), cache=Path(sys.argv[2]))"
    )
    cache = tmp_path / "cache"
    done = subprocess.run([sys.executable, "-c", code, source, str(cache)], check=False)
    assert done.returncode == -signal.SIGKILL
    (building,) = cache.glob(".building-*")
    first = (building / "train-00000.bin").stat()
    corpus = prepare(small(source), cache=cache)
    kept = (corpus.folder / "train-00000.bin").stat()
    assert (kept.st_ino, kept.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)  # not written again
    assert contents(corpus) == contents(prepare(small(source), cache=tmp_path / "other"))


@pytest.mark.parametrize(
    "limit", [3_000, 9_000]
)  # bytes a file may have: in the middle of the validation text, and of the first shard
def test_a_write_that_fails_half_way_leaves_nothing_that_looks_whole(
    source: str, tmp_path: Path, limit: int
) -> None:
    wanted = contents(prepare(small(source), cache=tmp_path / "other"))
    assert len(wanted["validation.bin"]) < 9_000 < len(wanted["train-00000.bin"])
    code = (
        "import resource, sys; from pathlib import Path; from proxy_train.text.data import DataSettings, prepare\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "prepare(DataSettings(source=sys.argv[1], vocabulary=300, validation_fraction=0.2), cache=Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, source, str(tmp_path / "cache")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "DataError" in done.stderr
    assert (
        "the prepared data cannot be written: File too large; the next start goes on from here" in done.stderr
    )
    assert not list((tmp_path / "cache").glob("tokens-*/"))
    assert contents(prepare(small(source), cache=tmp_path / "cache")) == wanted


def test_a_damaged_shard_is_mended_and_those_before_it_are_kept(
    source: str, tmp_path: Path, small_shards: None
) -> None:
    corpus = prepare(small(source), cache=tmp_path / "cache")
    wanted = contents(corpus)
    shard = corpus.folder / "train-00002.bin"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(DataError, match=r"train-00002\.bin: expected the SHA-256 [0-9a-f]{12}…, got"):
        open_corpus(corpus.folder)
    before = (corpus.folder / "train-00001.bin").stat().st_mtime_ns
    assert prepare(small(source), cache=tmp_path / "cache") == corpus
    assert contents(corpus) == wanted
    assert (corpus.folder / "train-00001.bin").stat().st_mtime_ns == before


def test_a_shard_of_another_size_is_refused_where_it_is_read(corpus: Corpus) -> None:
    shard = corpus.folder / "train-00000.bin"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes() + b"more")
    with pytest.raises(
        DataError, match=rf"train-00000\.bin: expected {size} bytes, got {size + 4}; prepare the data again"
    ):
        corpus.train()


def test_a_tokenizer_that_is_not_the_manifests_is_refused(corpus: Corpus, texts: list[str]) -> None:
    path = corpus.folder / "tokenizer.json"
    path.write_text(train_tokenizer(texts[:3], 290).to_str(), encoding="utf-8")
    with pytest.raises(DataError, match=r"tokenizer\.json: expected .* prepare the data again"):
        corpus.tokenizer()


def test_files_that_vanish_are_a_clear_error(corpus: Corpus) -> None:
    for path in corpus.folder.iterdir():
        path.unlink()
    for read in (corpus.train, corpus.validation, corpus.token_bytes, corpus.tokenizer):
        with pytest.raises(DataError, match="prepare the data again"):
            read()
