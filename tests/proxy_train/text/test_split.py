"""The split of documents: against the rule written out over all of them at once."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.base.errors import DataError
from proxy_train.text import split as split_module
from proxy_train.text.split import keyed, survey


def split(documents: list[str], fraction: float) -> tuple[list[str], list[str]]:
    """Training texts in their order, and validation texts, each once, in the order of their hashes."""
    rule = survey(documents, fraction).split
    parts = [(key, *rule.parts(text, key)) for text, key in keyed(documents, hashlib.sha256())]
    return [train for _, train, _ in parts if train], [
        text for _, text in sorted({key: held for key, _, held in parts if held}.items())
    ]


def written_out(documents: list[str], fraction: float) -> tuple[list[str], list[str]]:
    """The rule of `split.survey`, written out over a list of documents."""
    by_hash = sorted(set(documents), key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    if len(by_hash) == 1:
        (text,) = by_hash
        cut = min(max(1, len(text) - round(len(text) * fraction)), len(text) - 1)
        return [text[:cut]] * len(documents), [text[cut:]]
    target, held = fraction * sum(map(len, documents)), 0
    validation = []
    for text in by_hash:
        if held < target and len(text) <= target:
            validation.append(text)
            held += len(text)
    if len(validation) in (0, len(by_hash)):
        validation = [min(by_hash, key=len)]
    return [text for text in documents if text not in validation], validation


DOCUMENTS = st.lists(st.text(st.characters(codec="utf-8"), min_size=2, max_size=40), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS, st.floats(0.01, 0.99))
def test_split_is_the_rule_written_out(documents: list[str], fraction: float) -> None:
    documents += documents[:2]
    assert split(documents, fraction) == written_out(documents, fraction)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.floats(0.01, 0.99))
def test_split_leaves_no_side_empty_and_shares_no_document(documents: list[str], fraction: float) -> None:
    train, validation = split(documents, fraction)
    assert train
    assert validation
    if len(set(documents)) > 1:
        assert set(train) | set(validation) == set(documents)
        assert set(train).isdisjoint(validation)
    else:
        assert {text + validation[0] for text in train} == set(documents)


def test_split_takes_about_the_share_and_depends_on_contents_alone() -> None:
    texts = [f"document {number} " * 20 for number in range(30)]
    train, validation = split(texts, 0.2)
    assert 0.15 < sum(map(len, validation)) / sum(map(len, texts)) < 0.3
    assert split(texts[::-1], 0.2) == (train[::-1], validation)


def test_one_long_document_among_short_ones_stays_in_training() -> None:
    long = "x" * 10_000
    train, validation = split(["short one", long, "short two"], 0.05)
    assert long in train
    assert validation


def test_keys_that_end_in_zeros_keep_them() -> None:
    keys = [bytes([first, *[0] * 15]) for first in (1, 2, 3, 4)]
    rule = split_module._split(
        np.frombuffer(b"".join(keys), dtype="S16"), np.array([10, 10, 10, 10]), 40, 0.5
    )
    assert (rule.first, rule.last) == ("", "02" + "00" * 15)


def test_no_more_is_held_out_than_can_be_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "VALIDATION_CHARACTERS", 25)
    texts = [f"text {number:05}" for number in range(100)]
    assert len(split(texts, 0.5)[1]) == 3
    (train,), (held,) = split(["y" * 1000], 0.5)
    assert (len(train), len(held)) == (975, 25)


def test_the_tokenizer_learns_from_a_part_of_a_large_text(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text {number:05}" for number in range(1000)]

    def sampled() -> list[str]:
        rule = survey(texts, 0.1).split
        return [
            text
            for text, key in keyed(texts, hashlib.sha256())
            if rule.parts(text, key)[0] and rule.sampled(key)
        ]

    assert sampled() == split(texts, 0.1)[0]
    monkeypatch.setattr(split_module, "TOKENIZER_CHARACTERS", 5000)
    some = sampled()
    assert 350 <= len(some) <= 401  # half of all documents, without the held-out tenth
    assert set(some) < set(split(texts, 0.1)[0])
    assert 50 < texts.index(some[len(some) // 2]) < 950


def test_one_character_cannot_be_split() -> None:
    with pytest.raises(DataError, match="text too short to split: expected at least 2 characters, got 1"):
        survey(["x"], 0.5)
