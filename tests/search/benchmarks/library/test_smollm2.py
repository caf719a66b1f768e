"""The benchmark of a published model: how it scores a text, and what it says of the real weights."""

import math

import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

from operators import Architecture, HybridLM
from operators.base.errors import DataError
from proxy_train.text.documents import read_documents
from search.benchmarks.library.smollm2 import complete_and_score, published_file, scored_windows


@pytest.mark.parametrize("length", [2, 8, 9, 10, 17, 30])
@torch.no_grad()
def test_windows_score_every_token_once_with_enough_before_it(length):
    torch.manual_seed(0)
    model = HybridLM(Architecture.from_shorthand("a f m", width=32, vocabulary=50)).eval()
    tokens = torch.randint(50, (length,))
    windows = list(scored_windows(model, tokens, context=8, stride=3))
    assert [number for window in windows for number in range(window.first, window.last + 1)] == list(
        range(1, length)
    )
    for window in windows:
        begin = max(0, window.last - 8)
        assert window.first - begin >= min(window.first, 8 - 3)
        losses = [
            F.cross_entropy(model(tokens[None, begin:number])[0, -1], tokens[number]).item()
            for number in range(window.first, window.last + 1)
        ]
        assert window.nats == pytest.approx(sum(losses), rel=1e-5)
        assert window.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france_and_reads_new_addresses(monkeypatch):
    try:
        published_file()
    except DataError as error:
        pytest.skip(str(error))
    # The beginning of the newest address: `frontrunner bench smollm2` reads three of them in full.
    monkeypatch.setattr(
        "search.benchmarks.library.smollm2.read_documents",
        lambda source: [list(read_documents(source))[-1][:10_000]],
    )
    figures = complete_and_score("cpu", Console(quiet=True)).figures
    assert figures["parameters"] == 134_515_008
    assert str(figures["completion"]).startswith("The capital of France is Paris")
    assert figures["perplexity_per_token"] < 20
