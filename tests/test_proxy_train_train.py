"""The proxy run: what it learns, what it reports, and that nothing but the seed decides it."""

import json
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from operators import registry
from operators.architecture import Architecture
from operators.errors import DataError, DivergedError
from operators.model import HybridLM
from proxy_train.data import Corpus, DataSettings, prepare
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.train import CURVE_POINTS, Trained, evaluate, train

SETTINGS = ProxySettings(tokens=8_000, batch_size=2, sequence_length=64, validation_tokens=640)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Sentences of a small grammar: easy to predict from the words before, not from how often words occur."""
    rng = np.random.default_rng(0)
    who, what, where = (
        ["The governor", "A senator", "Our envoy"],
        ["signed the treaty", "read the report"],
        ["in Boston", "at sea", "by night"],
    )
    folder = tmp_path_factory.mktemp("text")
    for number in range(40):
        text = "".join(f"{rng.choice(who)} {rng.choice(what)} {rng.choice(where)}. " for _ in range(25))
        (folder / f"{number}.txt").write_text(text)
    return prepare(DataSettings(source=str(folder), vocabulary=272, validation_fraction=0.2), cache=tmp_path_factory.mktemp("cache"))


def model_of(text: str = "a f", width: int = 32, **rest: object) -> Architecture:
    return Architecture.from_shorthand(text, width=width, vocabulary=272, genes={"attention": {"head_dim": 16}}, **rest)


@pytest.fixture(scope="module")
def trained(corpus: Corpus) -> Trained:
    return train(model_of(), corpus, SETTINGS, seed=3)


def test_it_learns_far_below_the_unigram_loss(trained: Trained) -> None:
    score = trained.score
    assert score.loss < score.unigram_loss - 1
    assert score.loss < score.curve[0][1] - 2


def test_the_score_agrees_with_itself(trained: Trained, corpus: Corpus) -> None:
    score = trained.score
    assert score.perplexity == pytest.approx(math.exp(score.loss))
    assert score.unigram_loss == corpus.unigram_loss
    assert (score.steps, score.tokens) == (62, 62 * 128)
    assert score.tokens_per_s == pytest.approx(score.tokens / score.seconds)
    assert set(score.backends) == {"attention", "swiglu"}
    assert (score.device, score.seed) == ("cpu", 3)
    assert score.metrics() == {"loss": score.loss, "perplexity": score.perplexity, "bits_per_byte": score.bits_per_byte}
    assert ProxyScore.model_validate(json.loads(score.model_dump_json())) == score


def test_loss_and_bits_per_byte_by_hand(trained: Trained, corpus: Corpus) -> None:
    """One token after the other, and the bytes by decoding: nothing of evaluate's own arithmetic."""
    model = HybridLM(model_of())
    model.load_state_dict(trained.weights)
    tokenizer, held = corpus.tokenizer(), torch.from_numpy(corpus.validation().astype(np.int64))
    nats, count, text_bytes = 0.0, 0, 0
    for start in range(0, 640, 64):
        window = held[start : start + 65]
        probabilities = model(window[None, :-1])[0].double().softmax(-1)
        for position, target in enumerate(window[1:].tolist()):
            nats -= math.log(probabilities[position, target].item())
            count += 1
        text_bytes += len(tokenizer.decode(window[1:].tolist(), skip_special_tokens=True).encode())
    assert (held[1:641] == tokenizer.token_to_id("<|endoftext|>")).any()  # an end of a document is among them, and counts no byte
    assert trained.score.loss == pytest.approx(nats / count, rel=1e-5)
    assert trained.score.bits_per_byte == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-5)


def test_evaluate_does_not_depend_on_the_batch_size(trained: Trained, corpus: Corpus) -> None:
    model = HybridLM(model_of())
    model.load_state_dict(trained.weights)
    expected = (trained.score.loss, trained.score.bits_per_byte)
    assert evaluate(model, corpus, SETTINGS) == expected
    assert evaluate(model, corpus, SETTINGS.model_copy(update={"batch_size": 3})) == pytest.approx(expected, rel=1e-5)


def test_weights_are_whole_float32_and_nobody_elses(trained: Trained) -> None:
    assert set(trained.weights) == set(HybridLM(model_of()).state_dict())
    assert all(
        tensor.dtype == torch.float32 and tensor.device.type == "cpu" and not tensor.requires_grad for tensor in trained.weights.values()
    )
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in trained.weights.values())


def without_time(score: ProxyScore) -> ProxyScore:
    return score.model_copy(update={"seconds": 0.0, "tokens_per_s": 0.0, "flops_per_s": 0.0})


def test_the_seed_decides_every_bit(trained: Trained, corpus: Corpus) -> None:
    torch.rand(100)  # the caller's random state is not an input
    again = train(model_of(), corpus, SETTINGS, seed=3)
    assert without_time(again.score) == without_time(trained.score)
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in trained.weights.items())
    assert train(model_of(), corpus, SETTINGS, seed=4).score.loss != trained.score.loss


@pytest.mark.parametrize("diverges", [False, True])
def test_random_state_and_threads_are_put_back(corpus: Corpus, diverges: bool) -> None:
    threads, random, numpy_random = torch.get_num_threads(), torch.get_rng_state(), np.random.get_state()[1].copy()
    settings = SETTINGS.model_copy(update={"tokens": 512, "learning_rate": 1e4 if diverges else 1e-3})
    seen = []
    try:
        train(model_of(), corpus, settings, seed=0, threads=threads + 1, on_step=lambda step, loss: seen.append(torch.get_num_threads()))
    except DivergedError:
        assert diverges
    assert set(seen) == {threads + 1}
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert (np.random.get_state()[1] == numpy_random).all()


def test_an_absurd_learning_rate_is_a_failed_run_with_its_reason(corpus: Corpus) -> None:
    with pytest.raises(DivergedError, match=r"loss \S+ at step \d+: expected at most 1\.5 times the first one, 6\.\d+") as error:
        train(model_of(), corpus, SETTINGS.model_copy(update={"learning_rate": 1e3}), seed=0)
    assert "\n" not in str(error.value)


def test_a_loss_that_is_no_number_is_caught_at_its_step(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = HybridLM.forward, []

    def broken(self: HybridLM, tokens: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return forward(self, tokens) * (math.nan if len(calls) == 5 else 1.0)

    monkeypatch.setattr(HybridLM, "forward", broken)
    with pytest.raises(DivergedError, match="loss nan at step 5"):
        train(model_of(), corpus, SETTINGS, seed=0)


def test_ending_no_better_than_the_start_is_a_failed_run(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy_train.train.evaluate", lambda model, corpus, settings, rows: (9.0, 9.0))
    with pytest.raises(DivergedError, match=r"loss 9 on the validation text after 4 steps: expected below the first one"):
        train(model_of(), corpus, SETTINGS.model_copy(update={"tokens": 512}), seed=0)


def test_the_first_loss_is_that_of_a_guess(corpus: Corpus) -> None:
    steps: list[tuple[int, float]] = []
    train(model_of(), corpus, SETTINGS.model_copy(update={"tokens": 640}), seed=0, on_step=lambda step, loss: steps.append((step, loss)))
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5]
    # A uniform guess loses ln 272; logits of about unit variance lose half a nat more, and the tied embedding favours the token just read.
    assert 0 < steps[0][1] - math.log(272) < 1


def test_the_curve_is_the_mean_of_the_steps(corpus: Corpus) -> None:
    losses: list[float] = []
    curve = train(model_of(), corpus, SETTINGS, seed=0, on_step=lambda step, loss: losses.append(loss)).score.curve
    assert len(curve) == CURVE_POINTS
    start = 0
    for tokens, mean in curve:
        end = tokens // 128
        assert mean == pytest.approx(sum(losses[start:end]) / (end - start))
        start = end
    assert start == len(losses) == 62


@pytest.mark.parametrize("name", registry.names())
def test_every_operator_trains_at_the_default_learning_rate(corpus: Corpus, name: str) -> None:
    layers = f"{name} f" if registry.get(name).kind == "mixer" else f"a {name}"
    architecture = Architecture.from_shorthand(layers, width=32, vocabulary=272, genes={"attention": {"head_dim": 16}})
    score = train(architecture, corpus, SETTINGS.model_copy(update={"tokens": 5_000}), seed=0).score
    assert score.loss < score.unigram_loss - 0.5


def test_vocabularies_must_agree(corpus: Corpus) -> None:
    architecture = Architecture.from_shorthand("f", width=32, vocabulary=300)
    with pytest.raises(DataError, match="the prepared data has 272, the architecture 300"):
        train(architecture, corpus, SETTINGS, seed=0)
    with pytest.raises(DataError, match="the prepared data has 272, the architecture 300"):
        evaluate(HybridLM(architecture), corpus, SETTINGS)


def test_text_too_short_for_one_batch(corpus: Corpus) -> None:
    settings = ProxySettings(tokens=10**6, batch_size=1, sequence_length=corpus.validation_tokens)
    with pytest.raises(DataError, match="validation text too short for one batch"):
        train(model_of(), corpus, settings, seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": 100, "batch_size": 2, "sequence_length": 64},
        {"learning_rate": 0},
        {"warmup_fraction": 1},
        {"gradient_clip": 0},
        {"epochs": 3},
    ],
)
def test_settings_refuse_what_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProxySettings.model_validate(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_learns_on_a_gpu_too(corpus: Corpus) -> None:
    trained = train(model_of(), corpus, SETTINGS, seed=3, device="cuda")
    assert trained.score.loss < trained.score.unigram_loss - 1
    assert all(tensor.device.type == "cpu" for tensor in trained.weights.values())
