"""What is stopped at a rung; halving costs no member of the frontier while losses keep their order."""

import dataclasses

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from operators.base.errors import RunError
from search import pareto
from search.cluster.executor import InlineExecutor
from search.config import run as config_module
from search.config.evaluation import FidelitySettings, GateSettings
from search.evaluation.evaluate import evaluate
from search.evaluation.fidelity import Rung, costs_before_training, rung_metric, rungs_of
from search.evaluation.outcome import Evaluation, Outcome
from search.objectives import Objective
from search.runs import ledger as ledger_module
from search.runs.entry import finished
from search.runs.export import export
from search.runs.folder import RunFolder
from search.runs.frontier import scored
from search.runs.gate_counts import counted, gate_names
from search.runs.loop import drive
from search.runs.preflight import prepare_run
from tests.helpers.made_up_profile import MadeUpProfiler, measure_on_made_up_device
from tests.helpers.pretended_evaluations import PretendExecutor, pretended

LOSS, SLOW, LARGE = (
    Objective("loss", maximize=False),
    Objective("decode_ms@b1", maximize=False),
    Objective("params", maximize=False),
)


def rung(*reached):
    return Rung(100, tuple(((cost,), loss) for cost, loss in reached))


def test_the_best_share_of_those_no_slower_goes_on():
    six = rung(*((1.0, loss) for loss in (5.0, 3.0, 4.0, 6.0, 2.0, 7.0)))
    assert six.limit((1.0,), eta=3) == 3.0  # the second best of six
    assert six.limit((1.0,), eta=2) == 4.0
    assert six.limit((9.0,), eta=3) == 3.0
    assert six.limit((0.9,), eta=3) is None  # nobody is as fast


def test_nobody_is_stopped_before_there_are_enough_to_compare():
    assert rung((1.0, 3.0), (1.0, 4.0)).limit((1.0,), eta=3) is None
    assert rung((1.0, 3.0), (1.0, 4.0), (2.0, 1.0)).limit((1.0,), eta=3) is None
    assert rung((1.0, 3.0), (1.0, 4.0), (2.0, 1.0)).limit((2.0,), eta=3) == 1.0


def test_more_is_better_where_the_objective_says_so():
    fast = Objective("decode_tokens_per_s@b1", maximize=True)
    scores = [
        {"decode_tokens_per_s@b1": rate, "loss@t100": loss}
        for rate, loss in ((50.0, 2.0), (100.0, 3.0), (100.0, 4.0))
    ]
    (found,) = rungs_of((100,), (LOSS, fast), scores)
    assert found.limit(costs_before_training((LOSS, fast), {"decode_tokens_per_s@b1": 100.0}), eta=2) == 3.0
    assert found.limit(costs_before_training((LOSS, fast), {"decode_tokens_per_s@b1": 49.0}), eta=2) == 2.0


def test_losses_of_other_budgets_are_never_compared():
    """The lowest losses of all lie at the other rung and at the end; they change no limit here."""
    chosen, objectives = FidelitySettings(rungs=(100, 200)), (LOSS, SLOW)
    here = [{"decode_ms@b1": 1.0, "loss@t100": loss} for loss in (6.0, 5.0, 4.0)]
    elsewhere = [{**metrics, "loss@t200": 0.1, "loss": 0.05} for metrics in here] + [
        {"decode_ms@b1": 0.5, "loss@t200": 0.2}
    ]
    first, second = rungs_of(chosen.rungs, objectives, here)
    again, filled = rungs_of(chosen.rungs, objectives, elsewhere)
    assert first == again
    assert first.limit((1.0,), eta=3) == 4.0
    assert second.reached == ()
    assert [loss for _, loss in filled.reached] == [0.1, 0.1, 0.1, 0.2]


def test_who_lacks_an_objective_is_not_compared():
    scores = [{"loss@t100": 1.0}, {"decode_ms@b1": 1.0, "loss@t100": 2.0}]
    assert rungs_of((100,), (LOSS, SLOW), scores)[0].reached == (((1.0,), 2.0),)
    assert costs_before_training((LOSS, SLOW), {"loss": 1.0}) is None


def halved(points, *, eta, delay):
    """Which points are stopped, in this order, each knowing all but the `delay` before it.

    points: [loss at the end, cost, cost].

    The loss at a rung is another one for each, in the order of the losses at the end.
    """
    objectives, chosen, scores, stopped = (
        (LOSS, SLOW, LARGE),
        FidelitySettings(rungs=(10, 100), eta=eta),
        [],
        [],
    )
    for number, (loss, slow, large) in enumerate(points):
        metrics = {"decode_ms@b1": slow, "params": large}
        for each in rungs_of(chosen.rungs, objectives, scores[: max(0, number - delay)]):
            metrics[rung_metric(each.tokens)] = here = 10 + loss**3 / each.tokens
            limit = each.limit((slow, large), eta=eta)
            if limit is not None and here > limit:
                stopped.append(number)
                break
        else:
            metrics["loss"] = loss
        scores.append(metrics)
    return stopped


numbers = st.integers(0, 6).map(float)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=40), st.integers(2, 4), st.integers(0, 3))
def test_no_member_of_the_frontier_is_stopped_where_losses_keep_their_order(points, eta, delay):
    best = pareto.nondominated(np.array(points).reshape(len(points), 3))
    assert not [number for number in halved(points, eta=eta, delay=delay) if best[number]]


def test_many_that_are_dominated_are_stopped():
    points = np.random.default_rng(0).random((200, 3)) * 6
    stopped = halved(points.tolist(), eta=3, delay=2)
    assert len(stopped) > 60
    assert not pareto.nondominated(points)[stopped].any()


def test_a_training_worse_than_others_at_a_rung_ends_there(job):
    reached = Rung(512, (((1e-9,), 0.5), ((1e-9,), 0.7)))
    chosen = FidelitySettings(rungs=(256, 512, 768), eta=2)
    halving = dataclasses.replace(
        job,
        fidelity=chosen,
        objectives=(LOSS, SLOW),
        rungs=(Rung(256, ()), reached, Rung(768, ())),
        gates=GateSettings(audit=0),
    )
    outcome = evaluate(halving, MadeUpProfiler())
    evaluation = outcome.evaluation
    assert (evaluation.status, evaluation.gate) == ("stopped", "loss@t512")
    here = evaluation.metrics["loss@t512"]
    expected = "expected at most 0.5000, as 1 in 2 others no worse in decode_ms@b1 had"
    assert evaluation.reason == f"loss {here:.4f} after 512 tokens: {expected}"
    assert evaluation.metrics["loss@t256"] > evaluation.metrics["loss@t512"] > 1
    assert not {"loss", "perplexity", "loss@t768"} & evaluation.metrics.keys()
    assert (evaluation.proxy, outcome.weights) == (None, None)
    assert evaluation.seconds["train"] > 0

    slower = dataclasses.replace(
        halving, rungs=(Rung(512, tuple(((1e9,), loss) for _, loss in reached.reached)),)
    )
    evaluation = evaluate(slower, MadeUpProfiler()).evaluation
    assert evaluation.status == "ok"
    plain = evaluate(job, MadeUpProfiler()).evaluation
    assert evaluation.metrics["loss"] == plain.metrics["loss"]
    assert evaluation.metrics["loss"] < evaluation.metrics["loss@t768"]


def test_an_audit_lets_a_training_go_on_past_every_rung(job):
    beyond_reach = tuple(Rung(tokens, (((1e-9,), 0.5), ((1e-9,), 0.7))) for tokens in (256, 512))
    audited = dataclasses.replace(
        job,
        fidelity=FidelitySettings(rungs=(256, 512), eta=2),
        objectives=(LOSS, SLOW),
        rungs=beyond_reach,
        gates=GateSettings(audit=1),
    )
    evaluation = evaluate(audited, MadeUpProfiler()).evaluation
    assert (evaluation.status, evaluation.gate) == ("ok", "")
    assert [(audit.gate, audit.wrong) for audit in evaluation.audits] == [
        ("loss@t256", None),
        ("loss@t512", None),
    ]
    assert "after 256 tokens: expected at most 0.5000" in evaluation.audits[0].reason


def rungs_of_pretended(job):
    """A loss by chance that falls from rung to rung, and the end of the training where the real rule says so.

    Number 3 learns best of all and breaks a constraint in the end.
    """
    evaluation, final = pretended(job).evaluation, 1 + int(job.architecture.digest()[:4], 16) / 2**14
    metrics = {name: value for name, value in evaluation.metrics.items() if name != "loss"}
    costs = costs_before_training(job.objectives, metrics)
    if job.number == 3:
        return Outcome(
            Evaluation(status="infeasible", metrics={**metrics, "loss@t256": 0.0, "loss@t512": 0.0}, seed=0)
        )
    for each in job.rungs:
        metrics[rung_metric(each.tokens)] = loss = final + 1000 / each.tokens
        limit = each.limit(costs, eta=job.fidelity.eta)
        if limit is not None and loss > limit:
            gate = rung_metric(each.tokens)
            return Outcome(
                Evaluation(status="stopped", reason="learns too slowly", gate=gate, metrics=metrics, seed=0)
            )
    return Outcome(evaluation.model_copy(update={"metrics": {**metrics, "loss": final}}))


@pytest.fixture
def halving_run(prepared):
    fidelity = FidelitySettings(rungs=(256, 512), eta=2)
    config = prepared.config.model_copy(update={"fidelity": fidelity, "candidates": 30})
    return dataclasses.replace(prepared, config=config)


def test_a_stopped_candidate_is_recorded_and_has_no_score(tmp_path, halving_run):
    folder = RunFolder(tmp_path)
    ledger = ledger_module.create(folder.ledger, halving_run.config, started="now")
    drive(halving_run, folder, ledger, PretendExecutor(answer=rungs_of_pretended))
    entries, objectives = (
        ledger_module.open_ledger(folder.ledger).entries(),
        halving_run.config.parsed_objectives(),
    )
    stopped = [entry for entry in entries if entry.evaluation.status == "stopped"]
    assert len(stopped) >= 3
    assert {entry.number for entry in scored(entries, objectives).entries} == {*range(30)} - {3} - {
        entry.number for entry in stopped
    }
    assert not {entry.number for entry in stopped} & {
        entry.number for entry in scored(entries, objectives).frontier()
    }
    states = [
        trial.state
        for trial in optuna.load_study(study_name=None, storage=f"sqlite:///{folder.ledger}").trials
    ]
    assert {states[entry.number] for entry in stopped} == {TrialState.PRUNED}
    with pytest.raises(RunError, match=r"was not trained to the end \(stopped\): learns too slowly"):
        export(folder, ledger, stopped[0], tmp_path / "out")


@pytest.mark.usefixtures("ledgers_in_memory")
def test_the_same_ledger_gives_the_same_limits(tmp_path, halving_run):
    """Interrupted in the middle: the candidate that was under way is judged as it would have been."""
    seen = {}

    def noted(job, *, until=30):
        if len(seen) == until:
            raise KeyboardInterrupt
        seen[job.number] = job.rungs
        return rungs_of_pretended(job)

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    drive(
        halving_run,
        whole,
        ledger_module.create(whole.ledger, halving_run.config, started="now"),
        PretendExecutor(answer=noted),
    )
    expected, seen = seen, {}
    ledger = ledger_module.create(parts.ledger, halving_run.config, started="now")
    with pytest.raises(KeyboardInterrupt):
        drive(halving_run, parts, ledger, PretendExecutor(answer=lambda job: noted(job, until=15)))
    drive(halving_run, parts, ledger_module.open_ledger(parts.ledger), PretendExecutor(answer=noted))
    assert seen == expected
    assert len(expected[29][0].reached) == 28
    assert (
        min(loss for each in expected[29] for _, loss in each.reached) > 1
    )  # nobody is held to what number 3 had


@pytest.mark.slow
@pytest.mark.usefixtures("ledgers_in_memory")
def test_a_real_search_with_halving(tmp_path, tiny_config, monkeypatch):
    """Every decision made again from the ledger alone, by the definition. Times of a device are made up."""
    measure_on_made_up_device(monkeypatch)
    asked = {
        "candidates": 9,
        "objectives": ["loss", "params"],
        "fidelity": {"rungs": [256, 512], "eta": 2},
        "gates": {"audit": 0},
        "searcher": {"name": "random"},
    }
    config = config_module.parse({**tiny_config.model_dump(mode="json"), **asked}, where="halving")
    folder, prepared = RunFolder(tmp_path), prepare_run(config)
    ledger, executor = ledger_module.create(folder.ledger, config, started="now"), InlineExecutor("cpu")
    try:
        drive(prepared, folder, ledger, executor)
    finally:
        executor.close()
    before, statuses = [], []
    for entry in finished(ledger.entries()):
        metrics, expected = entry.evaluation.metrics, "ok"
        for name in ("loss@t256", "loss@t512"):
            peers = [
                other[name] for other in before if name in other and other["params"] <= metrics["params"]
            ]
            better = sum(loss < metrics[name] for loss in peers)
            if len(peers) >= 2 and better >= len(peers) // 2:
                expected = "stopped"
                break
        assert entry.evaluation.status == expected
        assert ("loss" in metrics) == (expected == "ok")
        before.append(metrics)
        statuses.append(expected)
    assert {"ok", "stopped"} == set(statuses)
    assert [
        gate.name for gate in counted(ledger.entries(), config.parsed_objectives(), gate_names(config))
    ] == ["loss@t256", "loss@t512"]
