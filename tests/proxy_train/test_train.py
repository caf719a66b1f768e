"""The proxy run: what it learns, what it reports, and that nothing but the seed decides it."""

import json
import math
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from operators import registry
from operators.architecture import Architecture
from operators.base.errors import ConfigError, DataError, DivergedError
from operators.cost import training_flops
from operators.model import HybridLM
from proxy_train.loss import cross_entropy
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.task_settings import TaskSettings
from proxy_train.tasks import train_task
from proxy_train.text.corpus import Corpus
from proxy_train.text.data import batches
from proxy_train.text.unigram import scored_unigram_loss
from proxy_train.train import CURVE_POINTS, Trained, train
from search.objectives import PROXY_METRICS
from tests.helpers.small_trainings import SETTINGS, model_of, without_time
from tests.helpers.validation_loss import validation_scores


@pytest.fixture(scope="module")
def corpus(sentences: Corpus) -> Corpus:
    return sentences


def test_it_learns_far_below_the_unigram_loss(trained: Trained) -> None:
    score = trained.score
    assert score.loss < score.unigram_loss - 1
    assert score.loss < score.curve[0][1] - 2


def test_it_needs_no_compiler(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch._dynamo takes seconds to import in each process that trains, and torch.optim imports it."""
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # an import raises
    settings = SETTINGS.model_copy(update={"tokens": 512})
    assert len(train(model_of(), corpus, settings, seed=0).score.curve) > 1
    train_task("copy", model_of(), TaskSettings(tokens=1024, scored_sequences=64), seed=0)


def unigram_by_hand(corpus: Corpus, settings: ProxySettings) -> float:
    """The unigram loss by hand, over the targets of the first whole windows."""
    counts = Counter(int(index) for shard in corpus.train().shards for index in shard)
    length = settings.sequence_length
    windows = max(1, min(settings.validation_tokens, corpus.validation_tokens - 1) // length)
    targets = corpus.validation()[1 : windows * length + 1].tolist()
    nats = [-math.log((counts[index] + 1) / (corpus.train_tokens + corpus.vocabulary)) for index in targets]
    return sum(nats) / len(nats)


@pytest.mark.parametrize("tokens", [1, 200, 10_000_000])
def test_the_unigram_loss_is_of_the_tokens_that_are_scored(corpus: Corpus, tokens: int) -> None:
    settings = SETTINGS.model_copy(update={"validation_tokens": tokens})
    loss = scored_unigram_loss(corpus, sequence_length=settings.sequence_length, tokens=tokens)
    assert loss == pytest.approx(unigram_by_hand(corpus, settings), rel=1e-12)


def test_the_score_agrees_with_itself(trained: Trained, corpus: Corpus) -> None:
    score = trained.score
    assert score.perplexity == pytest.approx(math.exp(score.loss))
    assert score.unigram_loss == pytest.approx(unigram_by_hand(corpus, SETTINGS), rel=1e-12)
    assert (score.steps, score.tokens) == (62, 62 * 128)
    assert score.tokens_per_s == pytest.approx(score.tokens / score.seconds)
    assert set(score.backends) == {"attention", "swiglu"}
    assert (score.device, score.seed) == ("cpu", 3)
    figures = score.metrics()
    assert [figures[name] for name in ("loss", "perplexity", "bits_per_byte")] == [
        score.loss,
        score.perplexity,
        score.bits_per_byte,
    ]
    assert set(figures) == set(PROXY_METRICS)
    assert ProxyScore.model_validate(json.loads(score.model_dump_json())) == score


def test_loss_and_bits_per_byte_by_hand(trained: Trained, corpus: Corpus) -> None:
    """One token after the other, with bytes by decoding: none of evaluate's own arithmetic."""
    model = HybridLM(model_of())
    model.load_state_dict(trained.weights)
    tokenizer, held = corpus.tokenizer(), torch.from_numpy(corpus.validation().astype(np.int64))
    end = tokenizer.token_to_id("<|endoftext|>")
    nats, count, text_bytes = 0.0, 0, 0
    for start in range(0, 640, 64):
        window = held[start : start + 65]
        probabilities = model(window[None, :-1])[0].double().softmax(-1)
        for position, target in enumerate(window[1:].tolist()):
            nats -= math.log(probabilities[position, target].item())
            count += 1
        # The end of a document counts no byte. Here it is an ordinary token, which decoding would write.
        text_bytes += len(tokenizer.decode([token for token in window[1:].tolist() if token != end]).encode())
    assert (held[1:641] == end).any()
    assert trained.score.loss == pytest.approx(nats / count, rel=1e-5)
    assert trained.score.bits_per_byte == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-5)


def test_evaluate_does_not_depend_on_the_batch_size(trained: Trained, corpus: Corpus) -> None:
    model = HybridLM(model_of())
    model.load_state_dict(trained.weights)
    expected = (trained.score.loss, trained.score.bits_per_byte)
    assert validation_scores(model, corpus, SETTINGS) == expected
    assert validation_scores(model, corpus, SETTINGS, rows=3) == pytest.approx(expected, rel=1e-5)


def test_weights_are_whole_float32_and_nobody_elses(trained: Trained) -> None:
    assert set(trained.weights) == set(HybridLM(model_of()).state_dict())
    assert all(
        tensor.dtype == torch.float32 and tensor.device.type == "cpu" and not tensor.requires_grad
        for tensor in trained.weights.values()
    )
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in trained.weights.values())


def test_the_seed_decides_every_bit(trained: Trained, corpus: Corpus) -> None:
    torch.rand(100)  # the caller's random state is not an input
    again = train(model_of(), corpus, SETTINGS, seed=3)
    assert without_time(again.score) == without_time(trained.score)
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in trained.weights.items())
    assert train(model_of(), corpus, SETTINGS, seed=4).score.loss != trained.score.loss


@pytest.mark.parametrize("diverges", [False, True])
def test_random_state_and_threads_are_put_back(corpus: Corpus, diverges: bool) -> None:
    threads, random, numpy_random = (
        torch.get_num_threads(),
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
    )
    settings = SETTINGS.model_copy(update={"tokens": 512, "learning_rate": 1e4 if diverges else 1e-3})
    seen = []
    try:
        train(
            model_of(),
            corpus,
            settings,
            seed=0,
            threads=threads + 1,
            on_step=lambda step, loss: seen.append(torch.get_num_threads()),
        )
    except DivergedError:
        assert diverges
    assert set(seen) == {threads + 1}
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert (np.random.get_state()[1] == numpy_random).all()


def test_an_absurd_learning_rate_is_a_failed_run_with_its_reason(corpus: Corpus) -> None:
    with pytest.raises(
        DivergedError, match=r"loss \S+ at step \d+: expected at most 1\.5 times the first step's, 6\.\d+"
    ) as error:
        train(model_of(), corpus, SETTINGS.model_copy(update={"learning_rate": 1e3}), seed=0)
    assert "\n" not in str(error.value)


def test_a_loss_that_is_no_number_is_caught_at_its_step(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = HybridLM.forward, []

    def broken(self: HybridLM, tokens: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return forward(self, tokens) * (math.nan if len(calls) == 5 else 1.0)

    monkeypatch.setattr(HybridLM, "forward", broken)
    with pytest.raises(DivergedError, match="loss nan at step 5"):
        train(model_of(), corpus, SETTINGS, seed=0)


def test_ending_no_better_than_the_start_is_a_failed_run(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_train.train.evaluate", lambda model, corpus, **how: (9.0, 9.0))
    with pytest.raises(
        DivergedError,
        match=r"loss 9 on the validation text after 4 steps: expected less than the first step's",
    ):
        train(model_of(), corpus, SETTINGS.model_copy(update={"tokens": 512}), seed=0)


def test_the_first_loss_is_that_of_a_guess(corpus: Corpus) -> None:
    steps: list[tuple[int, float]] = []
    train(
        model_of(),
        corpus,
        SETTINGS.model_copy(update={"tokens": 640}),
        seed=0,
        on_step=lambda step, loss: steps.append((step, loss)),
    )
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5]
    # A uniform guess loses ln 272. Logits of about unit variance lose half a nat more, and the tied embedding
    # favours the token that was just read.
    assert 0 < steps[0][1] - math.log(272) < 1


def test_the_curve_is_the_mean_of_the_steps(corpus: Corpus) -> None:
    losses: list[float] = []
    curve = train(
        model_of(), corpus, SETTINGS, seed=0, on_step=lambda step, loss: losses.append(loss)
    ).score.curve
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
    architecture = Architecture.from_shorthand(
        layers, width=32, vocabulary=272, genes={"attention": {"head_dim": 16}}
    )
    score = train(architecture, corpus, SETTINGS.model_copy(update={"tokens": 5_000}), seed=0).score
    assert score.loss < score.unigram_loss - 0.5


def test_pauses_between_steps_change_nothing_and_count_for_nothing(trained: Trained, corpus: Corpus) -> None:
    paused: list[float] = []

    def pause() -> float:
        began = time.perf_counter()
        time.sleep(0.01)
        paused.append(time.perf_counter() - began)
        return paused[-1]

    began = time.perf_counter()
    score = train(model_of(), corpus, SETTINGS, seed=trained.score.seed, pause=pause).score
    assert len(paused) == SETTINGS.steps
    assert 0 < score.seconds <= time.perf_counter() - began - sum(paused)
    assert without_time(score) == without_time(trained.score)


def test_vocabularies_must_agree(corpus: Corpus) -> None:
    architecture = Architecture.from_shorthand("f", width=32, vocabulary=300)
    with pytest.raises(DataError, match="the prepared data has 272, the architecture 300"):
        train(architecture, corpus, SETTINGS, seed=0)
    with pytest.raises(DataError, match="the prepared data has 272, the architecture 300"):
        validation_scores(HybridLM(architecture), corpus, SETTINGS)


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
        {"micro_batch_size": 3, "batch_size": 4},
        {"budgets": (1024,)},
        {"schedule": "wsd", "budgets": (2048, 1024)},
        {"schedule": "wsd", "budgets": (150_000,)},
        {"schedule": "wsd", "budgets": (100,)},
    ],
)
def test_settings_refuse_what_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProxySettings.model_validate(wrong)


def test_meta_tokens_train(corpus: Corpus) -> None:
    architecture = model_of(meta_tokens=4)
    torch.manual_seed(0)
    model = HybridLM(architecture)
    cross_entropy(model, *next(batches(corpus, batch_size=2, sequence_length=64, steps=1, seed=0))).backward()
    assert model.meta.grad.abs().sum(1).min() > 0
    trained = train(architecture, corpus, SETTINGS, seed=0)
    moved = (trained.weights["meta"] - model.meta.detach()).norm(dim=1) / model.meta.detach().norm(dim=1)
    assert (moved > 0.1).all()


def test_weight_normalization_trains_a_model_of_unit_rows_and_columns(corpus: Corpus) -> None:
    architecture = model_of(normalized_head=True)
    trained = train(architecture, corpus, SETTINGS.model_copy(update={"weight_normalization": True}), seed=0)
    assert trained.score.loss < trained.score.unigram_loss - 1
    for name, along in (("layers.0.operator.q_proj", 1), ("layers.1.operator.down_proj", 0)):
        lengths = trained.weights[f"{name}.weight"].norm(dim=along)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))
    with pytest.raises(ConfigError, match="expected an architecture with normalized_head: true"):
        train(model_of(), corpus, SETTINGS.model_copy(update={"weight_normalization": True}), seed=0)


def test_parts_of_a_batch_make_the_same_step(trained: Trained, corpus: Corpus) -> None:
    settings = SETTINGS.model_copy(update={"micro_batch_size": 1, "tokens": 1280})
    whole = train(model_of(), corpus, settings.model_copy(update={"micro_batch_size": None}), seed=0)
    parts = train(model_of(), corpus, settings, seed=0)
    assert (whole.score.micro_batch_size, parts.score.micro_batch_size) == (2, 1)
    assert [loss for _, loss in parts.score.curve] == pytest.approx(
        [loss for _, loss in whole.score.curve], rel=1e-5
    )


def test_where_memory_runs_out_fewer_rows_are_read_at_once(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[int, bool]] = []
    forward = HybridLM.forward

    def small(self: HybridLM, tokens: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            tried.append((len(tokens), self.recompute))
            if not self.recompute:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, tokens)

    monkeypatch.setattr(HybridLM, "forward", small)
    settings = SETTINGS.model_copy(update={"batch_size": 6, "tokens": 2 * 6 * 64})
    score = train(model_of(), corpus, settings, seed=0).score
    assert list(dict.fromkeys(tried)) == [(6, False), (3, False), (1, False), (1, True)]
    assert (score.micro_batch_size, score.recomputed) == (1, True)
    monkeypatch.setattr(
        HybridLM,
        "forward",
        lambda self, tokens: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")),
    )
    with pytest.raises(
        torch.OutOfMemoryError, match="one row at a time, with layers computed again: CUDA out of memory"
    ):
        train(model_of(), corpus, settings, seed=0)


def test_flops_of_a_token_by_hand() -> None:
    """By hand for a Llama of width 32: its matrices, and attention to half of 64 tokens on average."""
    architecture = model_of()
    swiglu = architecture.layers[1].shape
    matrices = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * swiglu.hidden + 32 * 272
    assert training_flops(architecture, 64) == pytest.approx(3 * (2 * matrices + 4 * 32 * 65 / 2))
