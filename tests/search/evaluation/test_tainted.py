"""Figures that should not be trusted: what means make of them, and what they are on a frontier."""

from math import exp

import numpy as np
import pytest

from search import pareto
from search.evaluation.outcome import Evaluation, Outcome, mean
from search.objectives import Objective
from search.runs.entry import Again, Entry
from search.runs.folder import RunFolder
from search.runs.frontier import (
    hypervolume_course,
    hypervolume_gain,
    scored,
    trained_twice,
    unclean,
)
from search.runs.ledger import open_ledger
from search.runs.repeats import GIVEN_UP
from search.runs.status import complete
from tests.helpers.made_up_device import hybrid
from tests.helpers.pretended_evaluations import PretendExecutor, pretended
from tests.helpers.pretended_search import searched, with_repeats

OBJECTIVES = (Objective("loss", maximize=False), Objective("decode_ms@b1", maximize=False))
REASON = "drift: the anchor model changed by 66.7%, expected at most 50%"


def evaluated(decode_ms, loss=1.0, *, tainted=False, error=0.05, seed=0):
    """Decoding at batch 4 for 1,000 bytes a step."""
    metrics = {
        "loss": loss,
        "perplexity": exp(loss),
        "decode_ms@b1": decode_ms,
        "decode_tokens_per_s@b1": 4e3 / decode_ms,
        "achieved_bytes_per_s@b1": 1e6 / decode_ms,
        "params": 1000.0,
    }
    timed = ("decode_ms@b1", "decode_tokens_per_s@b1", "achieved_bytes_per_s@b1")
    return Evaluation(
        status="ok",
        seed=seed,
        metrics=metrics,
        measured_errors=dict.fromkeys(timed, error),
        taints=dict.fromkeys(timed, REASON) if tainted else {},
    )


def entries(*evaluations):
    return [
        Entry(number, hybrid(), (), "random", evaluation=each, order=number)
        for number, each in enumerate(evaluations)
    ]


def numbers(found):
    return {entry.number for entry in found}


@pytest.mark.parametrize(("first", "second"), [(2.5, 2.6), (0.41, 0.4)])
def test_what_follows_from_a_time_follows_from_the_mean_time(first, second):
    both = mean(evaluated(first, 1.0), evaluated(second, 1.2, seed=1))
    ms = (first + second) / 2
    assert both.metrics["decode_ms@b1"] == pytest.approx(ms)
    assert both.metrics["decode_tokens_per_s@b1"] == pytest.approx(4e3 / ms)
    assert both.metrics["achieved_bytes_per_s@b1"] == pytest.approx(1e6 / ms)
    assert (both.metrics["loss"], both.metrics["perplexity"]) == pytest.approx((1.1, exp(1.1)))
    assert both.metrics["params"] == 1000
    assert both.tainted() == {}
    # In the order of the first, so that the columns of a table are in one order in every process.
    assert list(both.standard_errors) == list(both.metrics) == list(evaluated(first).metrics)
    assert list(both.errors())[:3] == list(evaluated(first).errors())


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_tainted_figure_is_left_out_of_the_mean(order):
    pair = (evaluated(0.41, 1.0, tainted=True, error=0.5), evaluated(0.69, 1.2))
    both = mean(pair[order[0]], pair[order[1]])
    assert both.metrics["decode_ms@b1"] == 0.69
    assert both.metrics["decode_tokens_per_s@b1"] == pytest.approx(4e3 / 0.69)
    assert both.metrics["loss"] == pytest.approx(1.1)  # the training was not disturbed
    assert (both.tainted(), both.errors()["decode_ms@b1"]) == ({}, 0.05)
    assert "decode_ms@b1" not in both.standard_errors


def test_two_tainted_figures_stay_tainted():
    both = mean(evaluated(0.5, tainted=True), evaluated(0.5, tainted=True))
    assert both.tainted()["decode_ms@b1"] == REASON


def test_two_clean_measurements_that_contradict_each_other_are_no_clean_mean():
    both = mean(evaluated(2.589), evaluated(0.833))
    assert both.tainted()["decode_ms@b1"] == (
        "two measurements differ: 2.589 and 0.833, expected within ± 10% of their mean"
    )
    assert both.errors()["decode_ms@b1"] == pytest.approx(1.756 / 3.422)


def test_a_second_evaluation_that_was_only_measured_leaves_the_training_as_it_was():
    second = evaluated(0.69)
    second = second.model_copy(
        update={"metrics": {name: value for name, value in second.metrics.items() if name[0] not in "lp"}}
    )
    entry = entries(evaluated(0.41, 1.3, tainted=True))[0].with_again(Again(attempts=(), evaluation=second))
    assert (entry.evaluation.metrics["loss"], entry.evaluation.metrics["decode_ms@b1"]) == (1.3, 0.69)
    assert "loss" not in entry.evaluation.standard_errors
    assert not unclean(entry, OBJECTIVES)


def test_a_tainted_candidate_dominates_nothing():
    lucky, honest, slow = evaluated(0.4, 1.0, tainted=True), evaluated(0.6, 1.5), evaluated(0.9, 1.6)
    found = scored(entries(lucky, honest, slow), OBJECTIVES).frontier()
    assert numbers(found) == {0, 1}  # slow is dominated by the honest one
    clean = scored(entries(evaluated(0.4, 1.0), honest, slow), OBJECTIVES).frontier()
    assert numbers(clean) == {0}


def test_a_tainted_candidate_is_dominated_only_where_another_is_clearly_better_in_what_is_known():
    honest = evaluated(0.6, 1.0)
    in_doubt = entries(honest, evaluated(0.9, 1.0, tainted=True))
    assert numbers(scored(in_doubt, OBJECTIVES).frontier()) == {0, 1}
    worse = entries(honest, evaluated(0.9, 1.1, tainted=True))
    assert numbers(scored(worse, OBJECTIVES).frontier()) == {0}


def test_who_is_tainted_adds_no_hypervolume():
    clean = [evaluated(1.0, 1.0), evaluated(0.8, 1.2), evaluated(0.9, 1.3)]
    lucky = evaluated(0.01, 0.1, tainted=True)
    assert hypervolume_gain(entries(*clean, lucky), OBJECTIVES, first=2) == hypervolume_gain(
        entries(*clean), OBJECTIVES, first=2
    )
    assert hypervolume_course(entries(*clean, lucky), OBJECTIVES, steps=9) == hypervolume_course(
        entries(*clean), OBJECTIVES, steps=9
    )
    assert hypervolume_gain(entries(lucky), OBJECTIVES, first=1) is None


def test_the_error_of_a_tainted_figure_is_infinite_even_of_zero():
    taken = evaluated(0.5, tainted=True)
    taken = taken.model_copy(update={"metrics": {**taken.metrics, "decode_ms@b1": 0.0}})
    assert scored(entries(taken), OBJECTIVES).errors.tolist() == [[0.0, np.inf]]


def test_no_cycle_comes_of_points_that_are_not_trusted():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points, off = rng.integers(4, size=(12, 3)).astype(float), rng.random((12, 3))
        off[rng.random((12, 3)) < 0.3] = np.inf
        assert pareto.nondominated(points, off).any()


def disturbed(job, until):
    """Scores of a device that is disturbed while fewer than so many jobs have ended; what was only measured
    has no loss.
    """
    found = pretended(job).evaluation
    metrics = {name: value for name, value in found.metrics.items() if job.trains or name != "loss"}
    taints = {"decode_ms@b1": REASON} if next(until) else {}
    return Outcome(found.model_copy(update={"metrics": metrics, "taints": taints}))


@pytest.mark.usefixtures("ledgers_in_memory")
def test_who_is_tainted_is_measured_again_at_the_end_and_not_trained(tmp_path, prepared):
    jobs = []

    def answer(job):
        jobs.append(job)
        return disturbed(job, iter([job.number in (1, 4) and job.trains]))

    run = with_repeats(prepared, 0.0, candidates=8)
    found = searched(tmp_path / "run", run, PretendExecutor(answer=answer))
    assert [(job.number, job.trains) for job in jobs[:8]] == [(number, True) for number in range(8)]
    assert {(job.number, job.trains) for job in jobs[8:]} == {(1, False), (4, False)}
    objectives = run.config.parsed_objectives()
    assert not any(unclean(entry, objectives) for entry in found)
    assert all("loss" in entry.evaluation.metrics for entry in found)
    assert not any(trained_twice(entry) for entry in found)


@pytest.mark.usefixtures("ledgers_in_memory")
def test_measuring_again_is_given_up_where_the_device_does_not_become_quiet(tmp_path, prepared):
    run = with_repeats(prepared, 0.0, candidates=8)
    executor = PretendExecutor(answer=lambda job: disturbed(job, iter([True])))
    found = searched(tmp_path / "run", run, executor)
    assert len(executor.answered) == 8 + GIVEN_UP
    objectives = run.config.parsed_objectives()
    assert all(unclean(entry, objectives) for entry in found)
    assert numbers(scored(found, objectives).frontier()) == numbers(found)  # nobody is known to be better
    ledger = open_ledger(RunFolder(tmp_path / "run").ledger)
    assert [entry.again for entry in ledger.entries()] == [entry.again for entry in found]
    assert complete(ledger, ledger.entries())
