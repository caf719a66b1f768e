"""What gates turn away, whom they let through to be audited, and the count of how often they are wrong."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from operators import Architecture
from search.config import run as config_module
from search.config.evaluation import GateSettings
from search.evaluation.audits import Audit, audits
from search.evaluation.evaluate import evaluate
from search.evaluation.outcome import Evaluation
from search.gates.screen import Screen
from search.objectives import RunMetrics
from search.runs import ledger as ledger_module
from search.runs.entry import Entry
from search.runs.folder import RunFolder
from search.runs.gate_counts import Gate, counted, gate_names
from search.runs.loop import drive
from search.runs.preflight import prepare_run
from search.runs.status import opened, standing
from search.view.run import print_standing
from tests.helpers.made_up_profile import made_up_profile
from tests.helpers.pretended_evaluations import PretendExecutor, pretended
from tests.helpers.proxy_scores import score

QUICK = {"searcher": {"name": "evolution"}}  # it thinks the shortest about each proposal


def model(number, vocabulary=300):
    return Architecture.from_shorthand("f", width=16, vocabulary=vocabulary + number)


def test_the_share_that_is_audited_is_as_asked_and_each_gate_draws_its_own():
    found = {
        gate: [audits(0.2, gate, model(n), seed=4) for n in range(1000)] for gate in ("table", "latency")
    }
    assert all(
        150 <= sum(drawn) <= 250 for drawn in found.values()
    )  # four standard deviations of a binomial of 1000 and 0.2
    assert sum(a and b for a, b in zip(*found.values(), strict=True)) < 80
    assert found["table"] == [audits(0.2, "table", model(n), seed=4) for n in range(1000)]
    assert found["table"] != [audits(0.2, "table", model(n), seed=5) for n in range(1000)]
    assert not any(audits(0, "table", model(n), seed=4) for n in range(50))
    assert all(audits(1, "table", model(n), seed=4) for n in range(50))


def test_the_cheaper_gate_comes_first_and_both_count():
    def odd(architecture):
        return "odd" if architecture.vocabulary % 2 else None

    def beyond(architecture):
        assert architecture.vocabulary % 2 == 0  # the table is not asked about what arithmetic turned away
        return "beyond" if architecture.vocabulary >= 306 else None

    screen = Screen(odd, beyond, audit=0, seed=0)
    assert [screen(model(n)) for n in range(10)] == [
        True,
        False,
        True,
        False,
        True,
        False,
        False,
        False,
        False,
        False,
    ]
    assert screen.take_counts() == {"arithmetic": (10, 5), "table": (5, 2)}
    assert screen.take_counts() == {}
    audited = Screen(odd, beyond, audit=1, seed=0)
    assert [audited(model(n)) for n in range(10)] == [True, False] * 5
    assert audited.take_counts() == {"arithmetic": (10, 5), "table": (5, 2)}
    assert [audited.table_says(model(n)) for n in (0, 6)] == ["", "beyond"]


def constrained(job, **changes):
    return dataclasses.replace(
        job, constraints=(RunMetrics(job.profile).constraint("params <= 1e8"),), **changes
    )


class Sizes:
    """A profiler that finds other numbers of parameters than an architecture has, one a measurement."""

    def __init__(self, *params):
        self.left = list(params)

    def profile(self, architecture, settings, **how):
        return made_up_profile(architecture, settings).model_copy(update={"params": self.left.pop(0)})


@pytest.mark.parametrize(("second", "status", "wrong"), [(10, "ok", True), (2 * 10**8, "infeasible", False)])
def test_an_audit_of_the_measured_gate_is_a_second_measurement_that_counts(job, second, status, wrong):
    sizes = Sizes(3 * 10**8, second)
    evaluation = evaluate(constrained(job, gates=GateSettings(audit=1)), sizes).evaluation
    assert (evaluation.status, evaluation.metrics["params"]) == (status, second)
    assert evaluation.audits == (
        Audit(gate="latency", reason="params is 3e+08, expected <= 1e+08", wrong=wrong),
    )
    assert evaluation.gate == ("" if wrong else "latency")
    assert sizes.left == []


def test_without_an_audit_one_measurement_decides(job):
    sizes = Sizes(3 * 10**8, 10)
    evaluation = evaluate(constrained(job, gates=GateSettings(audit=0)), sizes).evaluation
    assert (evaluation.status, evaluation.gate, evaluation.audits) == ("infeasible", "latency", ())
    assert sizes.left == [10]


@pytest.mark.parametrize(("bound", "wrong"), [("1e8", True), ("1", False)])
def test_the_table_is_wrong_about_who_keeps_the_constraints_when_measured(job, bound, wrong):
    constraints = (RunMetrics(job.profile).constraint(f"params <= {bound}"),)
    asked = dataclasses.replace(
        job, constraints=constraints, table_said="predicted too slow", gates=GateSettings(audit=0)
    )
    evaluation = evaluate(asked, Sizes(14_000)).evaluation
    assert evaluation.audits == (Audit(gate="table", reason="predicted too slow", wrong=wrong),)
    assert (evaluation.status == "ok") == wrong


def entry(number, screened=None, **evaluation):
    found = Evaluation.model_validate({"seed": 0, **evaluation}) if evaluation else None
    return Entry(
        number, model(number), (), "random", found, number if found else None, screened=screened or {}
    )


def test_the_report_counts_what_the_ledger_holds(job, tiny_config):
    profile, proxy = made_up_profile(job.architecture, job.profile), score(3.0, job.proxy, seed=0)
    data = {
        **tiny_config.model_dump(mode="json"),
        "constraints": ["decode_ms@b1 <= 5"],
        "fidelity": {"rungs": [256, 512]},
        "gates": {"table": True},
    }
    config = config_module.parse(data, where="x")
    first, second = "loss@t256", "loss@t512"

    def trained(loss, ms, **rest):
        metrics = {"loss": loss, "decode_ms@b1": ms, first: 6.0, second: 5.0}
        return {"status": "ok", "metrics": metrics, "profile": profile, "proxy": proxy, **rest}

    entries = [
        entry(0, {"arithmetic": (10, 4), "table": (6, 2)}, **trained(3.0, 3.0)),
        entry(
            1,
            {"arithmetic": (7, 1), "table": (6, 5)},
            **trained(2.0, 4.0, audits=[Audit(gate=first, reason="x")]),
        ),  # on the frontier
        entry(
            2, **trained(4.0, 4.0, audits=[Audit(gate=first, reason="x"), Audit(gate=second, reason="x")])
        ),  # dominated
        entry(3, status="stopped", gate=second, profile=profile, metrics={first: 6.0, second: 7.0}),
        entry(4, status="stopped", gate=first, profile=profile, metrics={first: 9.0}),
        entry(
            5,
            status="infeasible",
            gate="latency",
            profile=profile,
            audits=[Audit(gate="latency", reason="x", wrong=False)],
        ),
        entry(
            6,
            **trained(
                5.0,
                5.0,
                audits=[
                    Audit(gate="latency", reason="x", wrong=True),
                    Audit(gate="table", reason="x", wrong=True),
                ],
            ),
        ),
        entry(
            7,
            status="infeasible",
            gate="latency",
            profile=profile,
            audits=[Audit(gate="table", reason="x", wrong=False)],
        ),
        entry(
            8,
            status="diverged",
            profile=profile,
            metrics={first: 9.0},
            audits=[Audit(gate=first, reason="x")],
        ),  # tells nothing
        entry(9, status="crashed"),
        entry(10, {"arithmetic": (3, 0), "table": (3, 0)}),
    ]
    assert counted(entries, config.parsed_objectives(), gate_names(config)) == (
        Gate("arithmetic", 20, 5, 0, 0),
        Gate("table", 15, 7, 2, 1),
        Gate("latency", 9, 3, 2, 1),
        Gate(first, 7, 4, 2, 1),
        Gate(second, 5, 2, 1, 0),
    )
    assert counted(entries, tiny_config.parsed_objectives(), gate_names(tiny_config)) == ()


def test_counts_survive_in_the_ledger_and_status_shows_them(tmp_path, tiny_config):
    config = config_module.parse(
        {
            **tiny_config.model_dump(mode="json"),
            **QUICK,
            "constraints": ["params <= 14000"],
            "candidates": 12,
        },
        where="x",
    )
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    ledger = ledger_module.create(folder.ledger, config, started="now")
    asked = []

    def watched():
        prepared = prepare_run(config)

        def accepts(architecture):
            asked.append(prepared.screen(architecture))
            return asked[-1]

        return dataclasses.replace(prepared, space=dataclasses.replace(prepared.space, accepts=accepts))

    def until_7(job):
        if job.number == 7:
            raise KeyboardInterrupt
        return pretended(job)

    with pytest.raises(KeyboardInterrupt):
        drive(watched(), folder, ledger, PretendExecutor(answer=until_7))
    begun = len(asked)
    resumed = watched()
    resumed.space.seeds()
    again = len(asked) - begun  # what a proposer asks when it begins
    del asked[begun:]
    drive(resumed, folder, ledger_module.open_ledger(folder.ledger), PretendExecutor())
    del asked[begun : begun + again]
    found = standing(*opened(tmp_path, "run"))
    assert json.loads(json.dumps(found))["gates"]["arithmetic"] == {
        "seen": len(asked),
        "turned_away": asked.count(False),
        "audited": 0,
        "wrong": 0,
    }
    assert asked.count(False) > 0
    console = Console(width=100, record=True, file=io.StringIO())
    print_standing(console, found)
    text = console.export_text()
    assert "of these audited" in text
    assert f"{len(asked):,}" in text
    assert f"best_loss               {found['best_loss']:.4f} nats/token\n" in text
    assert f"hypervolume             {found['hypervolume']:.4f}\n" in text
