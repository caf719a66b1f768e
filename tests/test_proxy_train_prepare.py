"""Preparing text: against the documents themselves, and what a kill, a full disk or damage may leave."""

import hashlib
import json
import math
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from operators.errors import DataError
from proxy_train import prepare as prepare_module
from proxy_train import shards
from proxy_train.corpus import Corpus, open_corpus, read_manifest
from proxy_train.data_settings import DataSettings
from proxy_train.prepare import prepare, prepared, unigram_loss
from proxy_train.tokenizer import END_OF_DOCUMENT, load_tokenizer, train_tokenizer

WORDS = ["the", "union", "of", "states", "and", "people", "shall", "under", "law", "be", "one", "free", "country", "no", "king", "in"]


def speech(seed: int, words: int = 120) -> str:
    rng = np.random.default_rng(seed)
    return f"Address number {seed}.\r\n\r\n" + " ".join(rng.choice(WORDS, words)) + " – ¿naïve? 🦅\n"


@pytest.fixture
def texts() -> list[str]:
    return [speech(seed) for seed in range(30)]


@pytest.fixture
def source(tmp_path: Path, texts: list[str]) -> str:
    folder = tmp_path / "speeches"
    (folder / "deeper").mkdir(parents=True)
    for number, text in enumerate(texts[:20]):
        (folder / f"{number:03}.txt").write_bytes(text.encode())
    lines = [json.dumps({"text": text, "year": number}) for number, text in enumerate(texts[20:])]
    (folder / "deeper" / "more.jsonl").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    (folder / "README.md").write_text("not a document")
    return str(folder)


def small(source: str | list[str], **rest: object) -> DataSettings:
    return DataSettings.model_validate({"source": source, "vocabulary": 300, "validation_fraction": 0.2} | rest)


@pytest.fixture
def corpus(source: str, tmp_path: Path) -> Corpus:
    return prepare(small(source), cache=tmp_path / "cache")


def training_ids(corpus: Corpus) -> np.ndarray:
    return corpus.train().windows(np.array([0]), corpus.train_tokens)[0]


def decoded(corpus: Corpus, ids: np.ndarray) -> list[str]:
    """The documents that a run of tokens stands for."""
    text = corpus.tokenizer().decode(ids.tolist(), skip_special_tokens=False)
    assert text.endswith(END_OF_DOCUMENT)
    return text.split(END_OF_DOCUMENT)[:-1]


def test_tokens_decode_to_the_documents_split_in_two(corpus: Corpus, texts: list[str]) -> None:
    train, validation = decoded(corpus, training_ids(corpus)), decoded(corpus, corpus.validation())
    assert train
    assert validation
    assert sorted(train + validation) == sorted(texts)
    assert set(train).isdisjoint(validation)
    assert train == [text for text in texts if text in train]
    assert validation == sorted(validation, key=lambda text: hashlib.sha256(text.encode()).digest())  # a prefix is a fair sample
    assert sum(len(text.encode()) for text in validation) == corpus.validation_bytes
    assert (len(corpus.train()), len(corpus.validation())) == (corpus.train_tokens, corpus.validation_tokens)
    assert max(training_ids(corpus).max(), corpus.validation().max()) < corpus.vocabulary == 300


def test_a_single_document_is_cut_and_its_tail_is_the_validation(tmp_path: Path) -> None:
    text = speech(1, words=500)
    (tmp_path / "one.txt").write_bytes(text.encode())
    corpus = prepare(small(str(tmp_path / "one.txt")), cache=tmp_path / "cache")
    (head,), (tail,) = decoded(corpus, training_ids(corpus)), decoded(corpus, corpus.validation())
    assert head + tail == text
    assert len(tail) == round(len(text) * 0.2)


def test_a_reloaded_tokenizer_still_takes_the_end_token_in_a_text_as_text(corpus: Corpus) -> None:
    tokenizer = load_tokenizer(corpus.folder / "tokenizer.json")
    assert tokenizer.token_to_id(END_OF_DOCUMENT) not in tokenizer.encode(f"say {END_OF_DOCUMENT}").ids


def test_large_vocabularies_are_stored_in_four_bytes(source: str, texts: list[str], tmp_path: Path) -> None:
    corpus = prepare(small(source, vocabulary=70_000), cache=tmp_path / "cache")
    assert (corpus.folder / "train-00000.bin").stat().st_size == 4 * corpus.train_tokens
    assert corpus.vocabulary == 70_000  # as asked, though so little text has fewer merges
    assert sorted(decoded(corpus, training_ids(corpus)) + decoded(corpus, corpus.validation())) == sorted(texts)


def test_unigram_loss_by_hand(corpus: Corpus) -> None:
    counts = Counter(training_ids(corpus).tolist())
    nats = [-math.log((counts[index] + 1) / (corpus.train_tokens + 300)) for index in corpus.validation().tolist()]
    assert corpus.unigram_loss == pytest.approx(sum(nats) / len(nats), rel=1e-12)
    assert unigram_loss(np.array([2, 0]), np.array([1, 1])) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)


def test_a_corpus_travels_as_a_small_pickle(corpus: Corpus) -> None:
    raw = pickle.dumps(corpus)
    assert len(raw) < 1000
    assert (training_ids(pickle.loads(raw)) == training_ids(corpus)).all()  # noqa: S301


def test_the_second_time_comes_from_the_cache(corpus: Corpus, source: str) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in corpus.folder.iterdir()}
    assert prepare(small(source), cache=corpus.folder.parent) == corpus
    assert {path.name: path.stat().st_mtime_ns for path in corpus.folder.iterdir()} == before


def test_other_settings_or_contents_are_another_corpus(corpus: Corpus, source: str) -> None:
    cache = corpus.folder.parent
    others = [prepare(small(source, vocabulary=290), cache=cache), prepare(small(source, validation_fraction=0.3), cache=cache)]
    with (Path(source) / "000.txt").open("a") as file:
        file.write("one more line")
    others.append(prepare(small(source), cache=cache))
    assert len({corpus.digest, *(other.digest for other in others)}) == 4
    assert len({corpus.folder, *(other.folder for other in others)}) == 4


def test_where_the_text_lies_does_not_matter(corpus: Corpus, source: str, tmp_path: Path) -> None:
    moved = Path(source).rename(tmp_path / "elsewhere")
    assert prepare(small([str(moved)]), cache=corpus.folder.parent) == corpus


@pytest.mark.parametrize("name", ["train-00000.bin", "validation.bin", "token_bytes.bin", "tokenizer.json", "manifest.json"])
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
    assert {path.name for path in corpus.folder.parent.iterdir()} == {corpus.folder.name, f"{corpus.folder.name}.lock"}


SMALL_SHARD = 1000


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_TOKENS", SMALL_SHARD)


def contents(corpus: Corpus) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in corpus.folder.iterdir()}


def test_shards_hold_the_tokens_in_their_order(source: str, corpus: Corpus, tmp_path: Path, small_shards: None) -> None:
    sharded = prepare(small(source), cache=tmp_path / "sharded")
    sizes = [len(part) for part in sharded.train().shards]
    assert sizes[:-1] == [SMALL_SHARD] * (len(sizes) - 1)
    assert len(sizes) > 3
    assert 0 < sizes[-1] <= SMALL_SHARD
    assert (training_ids(sharded) == training_ids(corpus)).all()
    assert sharded.unigram_loss == corpus.unigram_loss


def test_a_document_longer_than_everything_spans_shards(tmp_path: Path, small_shards: None) -> None:
    texts = ["short one", speech(1, words=8000), "short two"]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    corpus = prepare(small(str(path)), cache=tmp_path / "cache")
    assert len(corpus.train().shards) > 3
    train = decoded(corpus, training_ids(corpus))
    assert texts[1] in train
    assert sorted([*train, *decoded(corpus, corpus.validation())]) == sorted(texts)


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
        "from proxy_train import shards, prepare as p; from proxy_train.data import DataSettings\n"
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


@pytest.mark.parametrize("limit", [3_000, 9_000])  # bytes a file may have: in the middle of the validation text, and of the first shard
def test_a_write_that_fails_half_way_leaves_nothing_that_looks_whole(source: str, tmp_path: Path, limit: int) -> None:
    wanted = contents(prepare(small(source), cache=tmp_path / "other"))
    assert len(wanted["validation.bin"]) < 9_000 < len(wanted["train-00000.bin"])
    code = (
        "import resource, sys; from pathlib import Path; from proxy_train.data import DataSettings, prepare\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "prepare(DataSettings(source=sys.argv[1], vocabulary=300, validation_fraction=0.2), cache=Path(sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", code, source, str(tmp_path / "cache")], check=False, capture_output=True, text=True)
    assert "DataError" in done.stderr
    assert "the prepared data cannot be written: File too large; the next start goes on from here" in done.stderr
    assert not list((tmp_path / "cache").glob("tokens-*/"))
    assert contents(prepare(small(source), cache=tmp_path / "cache")) == wanted


def test_a_damaged_shard_is_mended_and_those_before_it_are_kept(source: str, tmp_path: Path, small_shards: None) -> None:
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
    with pytest.raises(DataError, match=rf"train-00000\.bin: expected {size} bytes, got {size + 4}; prepare the data again"):
        corpus.train()


def test_a_tokenizer_that_is_not_the_manifests_is_refused(corpus: Corpus, texts: list[str]) -> None:
    path = corpus.folder / "tokenizer.json"
    path.write_text(train_tokenizer(texts[:3], 290).to_str(), encoding="utf-8")
    with pytest.raises(DataError, match=r"tokenizer\.json: expected .* prepare the data again"):
        corpus.tokenizer()


def test_a_source_that_changes_while_it_is_read_is_refused(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = prepare_module._begun

    def begun(*arguments: object) -> object:
        manifest = begin(*arguments)  # type: ignore[arg-type]
        (Path(source) / "000.txt").write_text("another text")
        return manifest

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_begun", begun)
        with pytest.raises(DataError, match="the text changed while it was read; start again"):
            prepare(small(source), cache=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert "another text" in decoded_all(prepare(small(source), cache=tmp_path / "cache"))


def decoded_all(corpus: Corpus) -> list[str]:
    return decoded(corpus, training_ids(corpus)) + decoded(corpus, corpus.validation())


def test_an_unchanged_source_is_surveyed_once(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert any("number X." in text for text in decoded_all(prepare(small(source, vocabulary=290), cache=tmp_path / "cache")))


def test_equal_documents_are_never_on_both_sides(source: str, texts: list[str], tmp_path: Path) -> None:
    twice = [source, str(Path(source).rename(tmp_path / "first"))]
    (tmp_path / "speeches").symlink_to(tmp_path / "first")
    corpus = prepare(small(twice), cache=tmp_path / "cache")
    train, validation = decoded(corpus, training_ids(corpus)), decoded(corpus, corpus.validation())
    assert set(train).isdisjoint(validation)
    assert len(validation) == len(set(validation))
    assert Counter(train) == {text: 2 for text in texts if text not in validation}


def test_progress_tells_how_many_documents_are_done(source: str, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    prepare(small(source), cache=tmp_path / "cache", on_progress=lambda *news: seen.append(news))
    assert seen[29] == ("reading", 30, 0)
    assert seen[-1] == ("encoding", 30, 30)


def test_a_given_tokenizer_is_used_and_kept(source: str, texts: list[str], tmp_path: Path) -> None:
    own = train_tokenizer(texts[:2], 290)
    path = tmp_path / "own.json"
    path.write_text(own.to_str(pretty=True), encoding="utf-8")
    corpus = prepare(small(source, tokenizer=str(path), vocabulary=320), cache=tmp_path / "cache")
    assert sorted(decoded_all(corpus)) == sorted(texts)
    assert (corpus.folder / "tokenizer.json").read_bytes() == path.read_bytes()
    first = decoded(corpus, training_ids(corpus))[0]
    assert training_ids(corpus)[: len(own.encode(first).ids)].tolist() == own.encode(first).ids
    assert read_manifest(corpus.folder)[0].tokenizer_tokens == own.get_vocab_size()
    other = prepare(small(source, vocabulary=320), cache=tmp_path / "cache")
    assert other.folder != corpus.folder


def test_a_given_tokenizer_must_fit(source: str, texts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(train_tokenizer(texts, 400).to_str(), encoding="utf-8")
    needed = load_tokenizer(path).get_vocab_size()
    for wrong, message in (
        ({"vocabulary": 300}, rf"vocabulary 300 is smaller than the tokenizer .*own\.json: expected at least {needed}"),
        ({"vocabulary": 500, "end_of_document": "<end>"}, r"own\.json: it has no token <end>"),
        ({"tokenizer": str(tmp_path / "missing.json")}, r"missing\.json: not a tokenizer\.json that can be read"),
        ({"tokenizer": str(Path(source) / "000.txt")}, r"000\.txt: not a tokenizer\.json that can be read"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(small(source, **{"tokenizer": str(path), **wrong}), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_two_processes_may_prepare_at_once(source: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from proxy_train.data import DataSettings, prepare\n"
        "print('ready', flush=True); input()\n"
        "print(prepare(DataSettings(source=sys.argv[1], vocabulary=300, validation_fraction=0.2), cache=Path(sys.argv[2])).digest)"
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


def test_files_that_vanish_are_a_clear_error(corpus: Corpus) -> None:
    for path in corpus.folder.iterdir():
        path.unlink()
    for read in (corpus.train, corpus.validation, corpus.token_bytes, corpus.tokenizer):
        with pytest.raises(DataError, match="prepare the data again"):
            read()


@pytest.mark.parametrize(
    "wrong",
    [
        {"sauce": "sotu"},
        {"source": []},
        {"vocabulary": 256},
        {"validation_fraction": 0.0},
        {"validation_fraction": 1},
        {"end_of_document": "</s>"},
    ],
)
def test_settings_refuse_what_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DataSettings.model_validate(wrong)
