"""Batches: windows of the tokens, and rules of their order."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.base.errors import DataError
from proxy_train.text.corpus import Corpus
from proxy_train.text.data import batches, bits_per_byte, require_windows, validation_batches
from proxy_train.text.shards import Tokens
from tests.helpers.speeches import training_ids


def test_bits_per_byte_by_hand() -> None:
    assert bits_per_byte(8 * math.log(2), 4) == pytest.approx(2.0)


def test_batches_are_windows_of_the_training_tokens_with_targets_one_later(corpus: Corpus) -> None:
    tokens = training_ids(corpus)
    rows = {tuple(tokens[start : start + 11].tolist()) for start in range(len(tokens) - 10)}
    got = list(batches(corpus, batch_size=3, sequence_length=10, steps=50, seed=7))
    assert len(got) == 50
    for inputs, targets in got:
        assert inputs.shape == targets.shape == (3, 10)
        assert (inputs[:, 1:] == targets[:, :-1]).all()
        for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
            assert (*row, target[-1]) in rows


def test_batches_depend_on_the_seed_alone(corpus: Corpus) -> None:
    def stream(seed: int, steps: int = 5) -> list[list[list[int]]]:
        return [
            inputs.tolist()
            for inputs, _ in batches(corpus, batch_size=2, sequence_length=8, steps=steps, seed=seed)
        ]

    assert stream(1) == stream(1)
    assert stream(1) != stream(2)
    assert stream(1, steps=5000)[:5] == stream(1)  # a longer training begins as a shorter one


@pytest.mark.parametrize(("batch_size", "sequence_length"), [(3, 10), (1, 7), (64, 50)])
def test_no_token_is_a_target_twice_in_an_epoch_and_all_but_the_rims_are(
    corpus: Corpus, batch_size: int, sequence_length: int
) -> None:
    places = np.arange(corpus.train_tokens)
    numbered = replace(corpus, validation_tokens=corpus.train_tokens)
    object.__setattr__(numbered, "train", lambda: Tokens((places,)))
    windows = (corpus.train_tokens - sequence_length) // sequence_length  # of any epoch, at least
    got = batches(
        numbered,
        batch_size=batch_size,
        sequence_length=sequence_length,
        steps=3 * windows // batch_size + 3,
        seed=3,
    )
    rows = np.concatenate([targets.numpy() for _, targets in got])
    epoch = rows[:windows].ravel()
    assert len(set(epoch.tolist())) == len(epoch)
    assert len(epoch) > corpus.train_tokens - 2 * sequence_length
    again = rows[windows + 1 : 2 * windows].ravel()
    assert set(epoch.tolist()) != set(again.tolist())  # other windows
    assert rows[: windows // 2].tolist() != sorted(rows[: windows // 2].tolist())


def test_batches_reach_the_first_and_the_last_token(corpus: Corpus) -> None:
    length = corpus.train_tokens - 2  # two windows in all
    got = list(
        batches(
            replace(corpus, validation_tokens=length + 1),
            batch_size=8,
            sequence_length=length,
            steps=4,
            seed=0,
        )
    )
    tokens = training_ids(corpus)
    assert {(int(row[0]), int(row[-1])) for _, targets in got for row in targets} == {
        (int(tokens[1]), int(tokens[-2])),
        (int(tokens[2]), int(tokens[-1])),
    }


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.data())
def test_windows_over_shards_are_windows_of_the_whole(count: int, each: int, data: st.DataObject) -> None:
    ids = np.arange(count) + 1000
    tokens = Tokens(tuple(ids[first : first + each] for first in range(0, count, each)))
    length = data.draw(st.integers(1, count))
    starts = np.array(data.draw(st.lists(st.integers(0, count - length), max_size=4)), dtype=np.int64)
    assert len(tokens) == count
    assert tokens.windows(starts, length).tolist() == [
        ids[start : start + length].tolist() for start in starts
    ]


@pytest.mark.parametrize("tokens", [1, 25, 10**9])
def test_validation_scores_whole_windows_from_the_start_each_token_once(corpus: Corpus, tokens: int) -> None:
    got = list(validation_batches(corpus, batch_size=4, sequence_length=10, tokens=tokens))
    targets = np.concatenate([targets.numpy().ravel() for _, targets in got])
    inputs = np.concatenate([inputs.numpy().ravel() for inputs, _ in got])
    windows = max(1, min(tokens, corpus.validation_tokens - 1) // 10)
    assert (inputs == corpus.validation()[: 10 * windows]).all()
    assert (targets == corpus.validation()[1 : 10 * windows + 1]).all()
    assert all(len(batch) <= 4 for batch, _ in got)


def test_text_too_short_for_one_window_tells_have_and_need(corpus: Corpus) -> None:
    have = corpus.validation_tokens
    require_windows(corpus, have - 1)
    with pytest.raises(
        DataError,
        match=rf"validation text too short .* has {have} tokens, sequence_length {have} needs {have + 1}",
    ):
        require_windows(corpus, have)
    with pytest.raises(DataError, match=rf"training text too short .* has {corpus.train_tokens} tokens"):
        next(batches(corpus, batch_size=1, sequence_length=corpus.train_tokens, steps=1, seed=0))
    with pytest.raises(DataError, match="too short"):
        next(validation_batches(corpus, batch_size=1, sequence_length=have, tokens=1))
