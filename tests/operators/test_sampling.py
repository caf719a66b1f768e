"""Drawing tokens: the probabilities are those of the filtered softmax, and its limits are the greedy text."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import Architecture, HybridLM
from operators.base.errors import ConfigError, DivergedError
from operators.sampling import Sampling, choose, probabilities

LOGITS = torch.tensor([1.0, 3.0, 2.0, 3.0, -1.0, 0.5])  # ids 1 and 3 are equally likely


def by_hand(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """The definition in plain Python: sort, keep k, keep what is needed for p, make the rest sum to 1."""
    weights = [math.exp(logit / temperature) for logit in logits]
    order = sorted(range(len(logits)), key=lambda index: (-logits[index], index))[:top_k]
    total, together, kept = sum(weights[index] for index in order), 0.0, []
    for index in order:
        if together >= top_p:
            break
        kept.append(index)
        together += weights[index] / total
    total = sum(weights[index] for index in kept)
    return [weights[index] / total if index in kept else 0.0 for index in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [1, 2, 3, 6, 100])
@pytest.mark.parametrize("top_p", [1.0, 0.7, 0.05])
def test_probabilities_are_those_of_the_definition(temperature: float, top_k: int, top_p: float) -> None:
    found = probabilities(LOGITS, Sampling(temperature, top_k, top_p))
    expected = torch.tensor(by_hand(LOGITS.tolist(), temperature, top_k, top_p), dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found > 0, expected > 0)


def drawn(sampling: Sampling, times: int) -> Tensor:
    generator = torch.Generator().manual_seed(sampling.seed)
    return torch.tensor([choose(LOGITS, sampling, generator) for _ in range(times)])


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    times = 3_000
    found = torch.bincount(drawn(Sampling(0.8), times), minlength=6).double()
    expected = times * (LOGITS.double() / 0.8).softmax(0)
    chi_square = float(((found - expected) ** 2 / expected).sum())
    assert chi_square < 20.5  # 5 degrees of freedom: exceeded once in a thousand times


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-300, 1e-5])
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    logits = LOGITS + torch.tensor([0, 0, 0, -1e-3, 0, 0])
    generator = torch.Generator().manual_seed(0)
    assert {choose(logits, Sampling(temperature), generator) for _ in range(20)} == {1}


def test_what_cannot_be_drawn_from_is_one_line() -> None:
    for changes, message in (
        ({"temperature": -0.1}, "temperature: expected a finite number from 0 on, got -0.1"),
        ({"temperature": math.nan}, "temperature: expected a finite number from 0 on, got nan"),
        ({"temperature": math.inf}, "temperature: expected a finite number from 0 on, got inf"),
        ({"top_k": 0}, "top_k: expected at least 1, got 0"),
        ({"top_p": 0.0}, "top_p: expected a number above 0, at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p: expected a number above 0, at most 1, got 1.5"),
        ({"seed": -1}, "seed: expected from 0 to"),
    ):
        with pytest.raises(ConfigError) as refusal:
            Sampling(**changes)
        assert str(refusal.value).startswith(message)
    for bad in (math.nan, math.inf):
        for temperature in (0.0, 1.0):
            with pytest.raises(DivergedError, match="logits: expected finite numbers"):
                probabilities(torch.tensor([0.0, bad]), Sampling(temperature))


@pytest.fixture(scope="module")
def model() -> HybridLM:
    torch.manual_seed(0)
    genes = {"attention": {"head_dim": 8}}
    return HybridLM(
        Architecture.from_shorthand("a f", width=32, vocabulary=60, genes=genes, meta_tokens=2)
    ).eval()


@torch.no_grad()
def test_greedy_text_takes_the_largest_logit_each_time(model: HybridLM) -> None:
    text = model.generate([5, 7], 12)
    assert len(text) == 14
    for place in range(2, 14):
        assert text[place] == int(model(torch.tensor([text[:place]]))[0, -1].argmax())
    for same in (
        {"temperature": 1e-4},
        {"temperature": 2.0, "top_k": 1},
        {"temperature": 2.0, "top_p": 1e-6},
    ):
        settings: dict[str, Any] = same
        assert model.generate([5, 7], 12, **settings) == text


def test_a_seed_fixes_the_text_and_leaves_torch_alone(model: HybridLM) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    texts = [model.generate([5], 30, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(before, torch.get_rng_state())


@torch.no_grad()
def test_drawn_tokens_are_among_the_k_most_likely(model: HybridLM) -> None:
    text = model.generate([5], 30, temperature=5.0, top_k=3, seed=1)
    ranks = []
    for place in range(1, 31):
        logits = model(torch.tensor([text[:place]]))[0, -1]
        ranks.append(int((logits > logits[text[place]]).sum()))
    assert set(ranks) == {0, 1, 2}


def test_nothing_follows_the_token_that_stops(model: HybridLM) -> None:
    text = model.generate([5], 12)
    stop = text[4]
    assert model.generate([5], 12, stop=stop) == text[: text.index(stop, 1) + 1]
    assert model.generate([5], 0) == [5]
