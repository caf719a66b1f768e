"""`bench vision_search`: which candidates meet a design, and what is said of both."""

from collections.abc import Sequence

import pytest

from search.benchmarks.library.vision_search import choice, chosen, compared, ranked, told
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


def test_candidates_that_are_no_slower_are_ranked_by_their_losses() -> None:
    entries = [
        entry(0, 1.0, 0.5),
        entry(1, 2.1, 0.1),  # too slow
        entry(2, 2.0, 0.4),  # just as fast
        entry(3, 1.5, 0.2),
        entry(4, 1.0, 0.0, "crashed"),
        entry(5, 0.5, 0.9),
    ]
    assert [each.number for each in ranked(entries, 2.0)] == [3, 2, 0, 5]
    assert ranked(entries, 0.4) == []


def test_the_next_three_have_their_turn_where_all_were_slower_when_measured_again() -> None:
    entries = [entry(number, 1.0, number / 10) for number in range(8)]
    turns: list[list[str]] = []

    def trained(names: Sequence[str]) -> dict[str, Variant]:
        turns.append(list(names))
        return {name: variant(name, 1.0 if name > "candidate 3" else 1.5, 0.5) for name in names}

    winners, again = choice(entries, {"fast": 1.0, "slow": 2.0}, trained)
    assert turns == [[f"candidate {number}" for number in numbers] for numbers in ((0, 1, 2), (3, 4, 5))]
    assert winners == {"slow": "candidate 0", "fast": "candidate 4"}
    assert len(again) == 6


def test_a_design_that_all_are_slower_than_meets_nobody() -> None:
    entries = [entry(number, 1.0, number / 10) for number in range(4)]
    winners, again = choice(
        entries,
        {"fast": 1.0, "faster": 0.5},
        lambda names: {name: variant(name, 1.5, 0.5) for name in names},
    )
    assert winners == {}
    assert len(again) == 4


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
