"""Synthetic tasks, against solvers written from their definitions."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from operators.architecture import Architecture
from operators.model import HybridLM
from proxy_train.task_settings import TaskSettings, metrics
from proxy_train.tasks import TASKS, UNSCORED, score_task, share_of_rate, train_task

SETTINGS = TaskSettings(symbols=6, sequence_length=33, copied=5)
SMALL = TaskSettings(symbols=4, sequence_length=16, copied=3, tokens=2_000, batch_size=8, scored_sequences=64)


def solved_recall(tokens, symbols):
    """Answers a recall by a dictionary of the pairs so far. Keys are at even places; other ids are noise."""
    known, answers = {}, []
    for place, token in enumerate(tokens):
        is_key = place % 2 == 0 and token < symbols
        answers.append(known.get(token, UNSCORED) if is_key else UNSCORED)
        if place % 2 and tokens[place - 1] < symbols:
            known[tokens[place - 1]] = token
    return answers


def solved_copy(tokens, symbols):
    written = [token for token in tokens if token < symbols]
    asked = [place for place, token in enumerate(tokens) if token == symbols + 1]
    answers = [UNSCORED] * len(tokens)
    for place, token in zip(asked, written, strict=True):
        answers[place] = token
    return answers


def drawn(name, settings=SETTINGS, *, count=200, seed=0):
    return TASKS[name].draw(settings, count, rng=np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("name", "solve"), [("recall", solved_recall), ("noisy_recall", solved_recall), ("copy", solved_copy)]
)
def test_a_solver_that_reads_from_left_to_right_has_every_answer(name, solve):
    inputs, targets = drawn(name)
    assert inputs.shape == targets.shape == (200, 33)
    assert inputs.min() >= 0
    assert inputs.max() < TASKS[name].vocabulary(6)
    assert [solve(row, 6) for row in inputs.tolist()] == targets.tolist()


@pytest.mark.parametrize("name", TASKS)
def test_every_answer_is_drawn_about_equally_often(name):
    answers = drawn(name, count=2000).targets
    shares = np.unique(answers[answers != UNSCORED], return_counts=True)[1] / (answers != UNSCORED).sum()
    assert shares == pytest.approx([1 / 6] * 6, abs=0.02)


def test_half_of_the_pairs_of_noisy_recall_are_noise():
    inputs, targets = drawn("noisy_recall", count=500)
    noise = inputs >= 12
    assert noise[:, ::2].mean() == pytest.approx(0.5, abs=0.02)
    assert (noise[:, :-1:2] == noise[:, 1::2]).all()
    assert (targets[noise] == UNSCORED).all()


def test_copied_symbols_lie_at_every_place_equally_often():
    inputs = drawn("copy", count=4000).inputs[:, :28]
    assert (inputs < 6).mean(0) == pytest.approx(np.full(28, 5 / 28), abs=0.04)


@pytest.mark.parametrize("name", TASKS)
def test_sequences_depend_on_the_seed_alone(name):
    first, again, other = drawn(name), drawn(name), drawn(name, seed=1)
    assert np.array_equal(first.inputs, again.inputs)
    assert np.array_equal(first.targets, again.targets)
    assert not np.array_equal(first.inputs, other.inputs)


def model_of(text="a f", width=32, **rest):
    return Architecture.from_shorthand(
        text, width=width, vocabulary=300, genes={"attention": {"head_dim": 16}}, **rest
    )


class Oracle(HybridLM):
    """A model that answers as the recall's solver: its hidden state holds the answer's id."""

    def hidden(self, tokens):
        answers = [solved_recall(row, 6) for row in tokens.tolist()]
        return torch.nn.functional.one_hot(
            torch.tensor(answers).clamp(min=0), self.architecture.vocabulary
        ).float()

    def logits(self, hidden):
        return 50 * hidden


def test_an_oracle_scores_everything_and_a_wrong_one_nothing():
    oracle = Oracle(model_of())
    even = SETTINGS.model_copy(update={"sequence_length": 32})
    right = drawn("recall", even)
    assert score_task(oracle, right, batch_size=7) == (1.0, pytest.approx(0.0, abs=1e-6))
    wrong = right._replace(targets=np.where(right.targets == UNSCORED, UNSCORED, right.targets % 6 + 100))
    assert score_task(oracle, wrong, batch_size=7)[0] == 0.0


@pytest.mark.parametrize("name", TASKS)
def test_an_untrained_model_is_no_better_than_a_guess(name):
    torch.manual_seed(0)
    architecture = model_of().model_copy(update={"vocabulary": TASKS[name].vocabulary(6)})
    accuracy, loss = score_task(HybridLM(architecture), drawn(name, count=500), batch_size=100)
    assert accuracy < 1 / 6 + 0.05
    assert loss > np.log(6) - 0.1


def test_the_score_is_the_same_for_the_same_seed_and_leaves_torch_as_it_was():
    before = torch.get_rng_state()
    first, again = (train_task("copy", model_of(), SMALL, seed=1) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    unclocked = {"seconds": 0.0}
    assert first.model_copy(update=unclocked) == again.model_copy(update=unclocked)
    assert first.loss != train_task("copy", model_of(), SMALL, seed=2).loss
    assert (first.chance, first.tokens) == (0.25, 15 * 8 * 16)
    assert metrics((first,)) == {"copy_accuracy": first.accuracy}


def test_the_width_layers_and_meta_tokens_are_the_architecture_s_own():
    assert train_task(
        "recall", model_of("c f a r", meta_tokens=2, tied_embeddings=False), SMALL, seed=0
    ).backends.keys() == {
        "short_conv",
        "swiglu",
        "attention",
        "relu2",
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"names": ["recall", "recall"]}, "expected each task once"),
        ({"tokens": 100}, "at least one batch of 512"),
        ({"copied": 40}, "at most half of sequence_length 32"),
        ({"symbols": 40}, "symbols: expected at most half of sequence_length 32"),
        ({"names": ["memory"]}, "'recall', 'noisy_recall' or 'copy'"),
    ],
)
def test_impossible_settings_are_refused(given, says):
    with pytest.raises(ValidationError, match=says):
        TaskSettings.model_validate(given)


# Written down from torch.optim.lr_scheduler.OneCycleLR: max_lr 1, pct_start 0.1, total_steps steps + 1.
@pytest.mark.parametrize(
    ("steps", "shares"),
    [
        (29, {0: 0.04, 1: 0.52, 2: 1.0, 3: 0.996619, 15: 0.529074, 28: 0.00338481}),
        (30, {0: 0.04, 1: 0.48413, 2: 0.994639, 3: 0.997435, 15: 0.55898, 29: 0.00317044}),
        (2, {0: 0.843121, 1: 0.301963}),
        (1, {0: 0.586826}),
    ],
)
def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_by_a_cosine(steps, shares):
    assert {step: share_of_rate(step, steps) for step in shares} == pytest.approx(shares, rel=1e-5)


def test_nine_steps_begin_at_the_peak():
    """Their tenth has no step, where OneCycleLR divides by zero."""
    assert share_of_rate(0, 9) == 1.0
    assert train_task("copy", model_of(), SMALL.model_copy(update={"tokens": 9 * 128}), seed=0).tokens == 1152


@pytest.mark.slow
def test_attention_learns_to_recall_and_short_convolutions_cannot():
    """Two convolutions of four tokens see three pairs, and can answer keys that recur within these."""
    settings = TaskSettings(tokens=240_000, learning_rate=2e-3)
    genes = {"attention": {"head_dim": 32, "group": 1}}
    attention, convolution = (
        Architecture.from_shorthand(text, width=64, vocabulary=300, genes=genes) for text in ("a a", "c c")
    )
    assert train_task("recall", attention, settings, seed=0).accuracy > 0.9
    fewer = settings.model_copy(update={"tokens": 200_000})
    assert train_task("recall", convolution, fewer, seed=0).accuracy < 0.6
