"""`bench vision_search`: which candidates meet a design, and what is said of both."""

import pytest

from search.benchmarks.library.vision_search import chosen, compared, finalists, told
from search.evaluation.outcome import Evaluation
from search.runs.entry import Entry
from search.studies.vision import Variant
from tests.helpers.vision_models import vision_language


def entry(number: int, ms: float, loss: float, status: str = "ok") -> Entry:
    metrics = {"ttft_ms@b1": ms, "answer_loss": loss} if status == "ok" else {}
    evaluation = Evaluation.model_validate({"status": status, "metrics": metrics, "seed": 0})
    return Entry(number, vision_language(), (), "random", evaluation=evaluation, order=number)


def variant(name: str, ms: float, *losses: float, problem: str = "") -> Variant:
    scores = {"answer_loss": losses, "answer_accuracy": tuple(1 - loss for loss in losses)}
    times = {"ttft_ms@b1": ms}
    return Variant(name, 1000, 16, {} if problem else scores, {} if problem else times, problem=problem)


def test_finalists_are_the_three_best_that_are_no_slower() -> None:
    entries = [
        entry(0, 1.0, 0.5),
        entry(1, 2.1, 0.1),  # too slow
        entry(2, 2.0, 0.4),  # just as fast
        entry(3, 1.5, 0.2),
        entry(4, 1.0, 0.0, "crashed"),
        entry(5, 0.5, 0.9),
    ]
    assert [each.number for each in finalists(entries, 2.0)] == [3, 2, 0]
    assert finalists(entries, 0.4) == []


def test_the_choice_is_by_the_mean_of_all_seeds_and_by_the_time_measured_again() -> None:
    lucky = variant("lucky", 1.0, 0.1, 0.6, 0.6)
    steady, slow = variant("steady", 1.0, 0.3, 0.3, 0.3), variant("slow", 2.1, 0.1, 0.1, 0.1)
    failed = variant("failed", 0.1, 0.0, problem="diverged: loss nan")
    assert chosen([lucky, steady, slow, failed], 2.0) == "steady"
    assert chosen([slow, failed], 2.0) == ""


def test_gains_are_those_of_equal_seeds_with_the_error_of_their_mean() -> None:
    figures = compared(variant("design", 2.0, 0.5, 0.4, 0.6), variant("candidate", 1.5, 0.4, 0.1, 0.4))
    # By hand: 0.1, 0.3 and 0.2 lower; their standard deviation is 0.1.
    assert figures["answer_loss_gain"] == pytest.approx(0.2)
    assert figures["answer_loss_gain_error"] == pytest.approx(0.1 / 3**0.5)
    assert figures["answer_accuracy_gain"] == pytest.approx(0.2)
    assert (figures["design_ttft_ms"], figures["candidate_ttft_ms"]) == (2.0, 1.5)


def test_both_are_told_in_a_line_also_where_one_failed() -> None:
    failed = variant("candidate 3", 0.0, problem="diverged: loss nan")
    assert told(variant("design", 2.0, 0.25, 0.25), failed) == (
        "candidate 3: diverged: loss nan against design: 75.0% right, loss 0.2500, 2.000 ms"
    )
    assert "answer_loss_gain" not in compared(variant("design", 2.0, 0.25, 0.25), failed)
