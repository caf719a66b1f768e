"""The loss on a text: each token is scored once, from the tokens before it in its window."""

import math

import numpy as np
import pytest
import torch

from operators import HybridLM
from operators.base.errors import ConfigError, DataError, DivergedError
from proxy_train import text_score
from proxy_train.settings import ProxySettings
from proxy_train.text.corpus import Corpus
from proxy_train.text_score import score_tokens, windows
from tests.helpers.small_trainings import model_of
from tests.helpers.validation_loss import validation_scores

LENGTHS = [(2, 2, 2), (3, 2, 1), (20, 8, 8), (17, 8, 8), (18, 8, 3), (30, 7, 1), (5, 64, 32), (65, 64, 64)]


@pytest.mark.parametrize(("tokens", "window", "stride"), LENGTHS)
def test_each_token_but_the_first_is_scored_once(tokens: int, window: int, stride: int) -> None:
    placed = windows(tokens, window, stride)
    length = min(window, tokens - 1)
    scored = [
        place for each in placed for place in range(each.start + each.context + 1, each.start + length + 1)
    ]
    assert scored == list(range(1, tokens))
    starts = [each.start for each in placed]
    assert starts[-1] == tokens - 1 - length
    assert starts[:-1] == [stride * number for number in range(len(starts) - 1)]


@pytest.fixture(scope="module")
def model() -> HybridLM:
    torch.manual_seed(0)
    return HybridLM(model_of("a m f", meta_tokens=3)).eval()


@pytest.mark.parametrize("per_pass", [1024, 16, 5])
@torch.no_grad()
def test_the_loss_is_that_of_each_token_after_those_before_it(
    model: HybridLM, per_pass: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_score, "_TOKENS", per_pass)  # fewer windows, or parts of one, in a pass
    ids = np.random.default_rng(0).integers(272, size=50, dtype=np.uint32)
    loss = score_tokens(model, ids, window=8, stride=3)
    # Predictions 1 to 8 are the first window's; each later window starts 3 tokens further and adds 3.
    nats = 0.0
    for target in range(1, 50):
        start = 0 if target <= 8 else min(3 * math.ceil((target - 8) / 3), 49 - 8)
        before = torch.tensor([ids[start:target].tolist()])
        nats -= float(model(before)[0, -1].log_softmax(0)[int(ids[target])])
    assert loss.nats == pytest.approx(nats, rel=1e-5)
    assert (loss.tokens, loss.windows, loss.window) == (49, 15, 8)


def test_training_scores_its_validation_text_alike(sentences: Corpus) -> None:
    torch.manual_seed(0)
    settings = ProxySettings(tokens=8_000, batch_size=2, sequence_length=64, validation_tokens=640)
    scored = HybridLM(model_of()).eval()
    loss = score_tokens(scored, sentences.validation()[:641], window=64, stride=64)
    assert (loss.tokens, loss.windows) == (640, 10)
    assert loss.nats / loss.tokens == pytest.approx(
        validation_scores(scored, sentences, settings)[0], rel=1e-6
    )


def test_what_cannot_be_scored_is_one_line(model: HybridLM) -> None:
    ids = np.arange(20, dtype=np.uint32)
    for given, window, stride, error, message in (
        (ids, 1, 1, ConfigError, "window: expected at least 2 tokens, got 1"),
        (ids, 8, 9, ConfigError, "stride: expected from 1 to the window, 8, got 9"),
        (ids, 8, 0, ConfigError, "stride: expected from 1 to the window, 8, got 0"),
        (ids[:1], 8, 8, DataError, "text too short: expected at least 2 tokens, got 1"),
        (ids + 260, 8, 8, DataError, "tokenizer: the text has the token id 272, expected from 0 to 271"),
    ):
        with pytest.raises(error) as refusal:
            score_tokens(model, given, window=window, stride=stride)
        assert str(refusal.value).startswith(message)


def test_a_loss_that_is_not_finite_is_one_line() -> None:
    damaged = HybridLM(model_of()).eval()
    with torch.no_grad():
        damaged.norm.weight[0] = math.nan
    with pytest.raises(DivergedError, match="loss nan at tokens 0 to 8: expected a finite number"):
        score_tokens(damaged, np.arange(20, dtype=np.uint32), window=8, stride=8)
