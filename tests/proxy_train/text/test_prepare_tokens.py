"""Tokens on disk against the documents that they stand for."""

import hashlib
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from operators.base.errors import DataError
from proxy_train.text.corpus import Corpus, read_manifest
from proxy_train.text.data_settings import DataSettings
from proxy_train.text.prepare import prepare, unigram_loss
from proxy_train.text.tokenizer import END_OF_DOCUMENT, load_tokenizer, train_tokenizer
from tests.helpers.speeches import SMALL_SHARD, decoded, decoded_all, small, speech, training_ids


@pytest.fixture
def corpus(source: str, tmp_path: Path) -> Corpus:
    return prepare(small(source), cache=tmp_path / "cache")


def test_tokens_decode_to_the_documents_split_in_two(corpus: Corpus, texts: list[str]) -> None:
    train, validation = decoded(corpus, training_ids(corpus)), decoded(corpus, corpus.validation())
    assert train
    assert validation
    assert sorted(train + validation) == sorted(texts)
    assert set(train).isdisjoint(validation)
    assert train == [text for text in texts if text in train]
    assert validation == sorted(
        validation, key=lambda text: hashlib.sha256(text.encode()).digest()
    )  # a prefix is a fair sample
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


def test_equal_documents_are_never_on_both_sides(source: str, texts: list[str], tmp_path: Path) -> None:
    twice = [source, str(Path(source).rename(tmp_path / "first"))]
    (tmp_path / "speeches").symlink_to(tmp_path / "first")
    corpus = prepare(small(twice), cache=tmp_path / "cache")
    train, validation = decoded(corpus, training_ids(corpus)), decoded(corpus, corpus.validation())
    assert set(train).isdisjoint(validation)
    assert len(validation) == len(set(validation))
    assert Counter(train) == {text: 2 for text in texts if text not in validation}


def test_large_vocabularies_are_stored_in_four_bytes(source: str, texts: list[str], tmp_path: Path) -> None:
    corpus = prepare(small(source, vocabulary=70_000), cache=tmp_path / "cache")
    assert (corpus.folder / "train-00000.bin").stat().st_size == 4 * corpus.train_tokens
    assert corpus.vocabulary == 70_000  # as asked, though so little text has fewer merges
    assert sorted(decoded(corpus, training_ids(corpus)) + decoded(corpus, corpus.validation())) == sorted(
        texts
    )


def test_unigram_loss_by_hand(corpus: Corpus) -> None:
    counts = Counter(training_ids(corpus).tolist())
    nats = [
        -math.log((counts[index] + 1) / (corpus.train_tokens + 300)) for index in corpus.validation().tolist()
    ]
    assert corpus.unigram_loss == pytest.approx(sum(nats) / len(nats), rel=1e-12)
    assert unigram_loss(np.array([2, 0]), np.array([1, 1])) == pytest.approx(
        -(math.log(3 / 4) + math.log(1 / 4)) / 2
    )


def test_shards_hold_the_tokens_in_their_order(
    source: str, corpus: Corpus, tmp_path: Path, small_shards: None
) -> None:
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


def test_a_reloaded_tokenizer_still_takes_the_end_token_in_a_text_as_text(corpus: Corpus) -> None:
    tokenizer = load_tokenizer(corpus.folder / "tokenizer.json")
    assert tokenizer.token_to_id(END_OF_DOCUMENT) not in tokenizer.encode(f"say {END_OF_DOCUMENT}").ids


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
        (
            {"vocabulary": 300},
            rf"vocabulary 300 is smaller than the tokenizer .*own\.json: expected at least {needed}",
        ),
        ({"vocabulary": 500, "end_of_document": "<end>"}, r"own\.json: it has no token <end>"),
        (
            {"tokenizer": str(tmp_path / "missing.json")},
            r"missing\.json: not a tokenizer\.json that can be read",
        ),
        ({"tokenizer": str(Path(source) / "000.txt")}, r"000\.txt: not a tokenizer\.json that can be read"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(small(source, **{"tokenizer": str(path), **wrong}), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_progress_tells_how_many_documents_are_done(source: str, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    prepare(small(source), cache=tmp_path / "cache", on_progress=lambda *news: seen.append(news))
    assert seen[29] == ("reading", 30, 0)
    assert seen[-1] == ("encoding", 30, 30)


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
