"""Budgets and rungs of a training: each has the score of a training of its own, and changes no other."""

from pathlib import Path

import pytest

from proxy_train.text.corpus import Corpus
from proxy_train.train import Trained, train
from tests.helpers.small_trainings import SETTINGS, model_of, without_time


def test_each_budget_scores_as_a_run_of_its_own(sentences: Corpus) -> None:
    """The smallest budget decides the warm-up; separate runs with this warm-up are equal to the last bit."""
    seen: list[int] = []
    settings = SETTINGS.model_copy(update={"schedule": "wsd", "budgets": (1280, 3840), "tokens": 7680})
    together = train(
        model_of(), sentences, settings, seed=0, on_step=lambda step, loss: seen.append(step)
    ).score
    assert seen == list(range(1, 61))
    assert [budget.tokens for budget in together.budgets] == [1280, 3840]
    for budget, shorter in zip(together.budgets, ((), (1280,)), strict=True):
        alone = train(
            model_of(),
            sentences,
            settings.model_copy(update={"budgets": shorter, "tokens": budget.tokens}),
            seed=0,
        ).score
        assert (budget.loss, budget.bits_per_byte) == (alone.loss, alone.bits_per_byte)
    assert together.loss < together.budgets[1].loss < together.budgets[0].loss
    assert together.curve[-1][0] == 7680


def test_a_rung_is_the_validation_loss_on_the_way_and_changes_nothing(
    trained: Trained, sentences: Corpus
) -> None:
    steps: list[int] = []
    seen: list[tuple[int, float, int]] = []
    again = train(
        model_of(),
        sentences,
        SETTINGS,
        seed=3,
        on_step=lambda step, loss: steps.append(step),
        rungs=(2_600, 5_130),
        on_rung=lambda tokens, loss: seen.append((tokens, loss, len(steps))),
    )
    assert without_time(again.score) == without_time(trained.score)
    assert [(tokens, after) for tokens, _, after in seen] == [
        (2_600, 20),
        (5_130, 40),
    ]  # as many whole batches of 128 as they hold
    assert trained.score.loss < seen[1][1] < seen[0][1] < trained.score.unigram_loss


def test_a_rung_at_a_smaller_budget_has_its_score(sentences: Corpus) -> None:
    settings, seen = SETTINGS.model_copy(update={"schedule": "wsd", "budgets": (2560,), "tokens": 7680}), {}
    score = train(model_of(), sentences, settings, seed=0, rungs=(2560, 5120), on_rung=seen.__setitem__).score
    assert list(seen) == [2560, 5120]
    assert seen[2560] == score.budgets[0].loss
    under_way = train(
        model_of(),
        sentences,
        settings.model_copy(update={"budgets": ()}),
        seed=0,
        rungs=(2560,),
        on_rung=seen.__setitem__,
    )
    assert seen[2560] > score.budgets[0].loss  # the rate had not decayed
    assert under_way.score.budgets == ()


def test_what_a_rung_raises_ends_the_training_there(sentences: Corpus) -> None:
    steps: list[int] = []

    def stop(tokens: int, loss: float) -> None:
        raise LookupError(tokens)

    with pytest.raises(LookupError, match="1280"):
        train(
            model_of(),
            sentences,
            SETTINGS,
            seed=0,
            on_step=lambda step, loss: steps.append(step),
            rungs=(1280, 2560),
            on_rung=stop,
        )
    assert steps == list(range(1, 11))


def test_a_training_that_goes_on_tells_of_the_rungs_before(
    sentences: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_train.trainer.CHECKPOINT_SECONDS", 0.0)
    reached: list[tuple[int, float]] = []

    def kill(step: int, loss: float) -> None:
        if step == 35:
            raise KeyboardInterrupt

    def run(**options: object) -> None:
        train(
            model_of(),
            sentences,
            SETTINGS,
            seed=0,
            rungs=(2560, 5120),
            on_rung=lambda *rung: reached.append(rung),
            **options,
        )

    run()
    expected, reached = reached, []
    with pytest.raises(KeyboardInterrupt):
        run(on_step=kill, checkpoint=tmp_path / "checkpoint")
    assert reached == expected[:1]
    reached = []
    run(checkpoint=tmp_path / "checkpoint")
    assert reached == expected
