"""What gates turn away, whom they let through to be audited, and the count of how often they are wrong."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError
from profiler.device.device import open_device
from profiler.table.latency_table import LatencyTable, Validation
from profiler.table.parts import Entry as TableEntry
from profiler.table.parts import Point
from proxy_train.text.data_settings import DataSettings
from search.config import run as config_module
from search.config.evaluation import GateSettings
from search.evaluation.audits import Audit, audits
from search.evaluation.evaluate import evaluate
from search.evaluation.outcome import Evaluation, Outcome
from search.gates import table as table_gate
from search.gates.screen import Screen
from search.gates.table import device_table, digest_of, is_kind, members, predicted_points, table_check
from search.objectives import parse_constraint
from search.runs import ledger as ledger_module
from search.runs.entry import Entry
from search.runs.folder import RunFolder
from search.runs.gate_counts import Gate, counted, gate_names
from search.runs.loop import drive
from search.runs.preflight import check_constraints, prepare_run
from search.runs.status import standing
from search.spaces.free import ArchitectureSpace
from search.spaces.staged import make_space
from search.view.run import print_standing
from tests.helpers.made_up_profile import made_up_profile
from tests.helpers.pretended_evaluations import PretendExecutor, pretended
from tests.helpers.proxy_scores import score

QUICK = {"searcher": {"name": "evolution"}}  # it thinks the shortest about each proposal


def model(number, vocabulary=300):
    return Architecture.from_shorthand("f", width=16, vocabulary=vocabulary + number)


def test_the_share_that_is_audited_is_as_asked_and_each_gate_draws_its_own():
    found = {
        gate: [audits(GateSettings(audit=0.2), gate, model(n), seed=4) for n in range(1000)]
        for gate in ("table", "latency")
    }
    assert all(
        150 <= sum(drawn) <= 250 for drawn in found.values()
    )  # four standard deviations of a binomial of 1000 and 0.2
    assert sum(a and b for a, b in zip(*found.values(), strict=True)) < 80
    assert found["table"] == [audits(GateSettings(audit=0.2), "table", model(n), seed=4) for n in range(1000)]
    assert found["table"] != [audits(GateSettings(audit=0.2), "table", model(n), seed=5) for n in range(1000)]
    assert not any(audits(GateSettings(audit=0), "table", model(n), seed=4) for n in range(50))
    assert all(audits(GateSettings(audit=1), "table", model(n), seed=4) for n in range(50))


def test_the_cheaper_gate_comes_first_and_both_count():
    def odd(architecture):
        return "odd" if architecture.vocabulary % 2 else None

    def beyond(architecture):
        assert architecture.vocabulary % 2 == 0  # the table is not asked about what arithmetic turned away
        return "beyond" if architecture.vocabulary >= 306 else None

    screen = Screen(odd, beyond, settings=GateSettings(audit=0), seed=0)
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
    audited = Screen(odd, beyond, settings=GateSettings(audit=1), seed=0)
    assert [audited(model(n)) for n in range(10)] == [True, False] * 5
    assert audited.take_counts() == {"arithmetic": (10, 5), "table": (5, 2)}
    assert [audited.table_says(model(n)) for n in (0, 6)] == ["", "beyond"]


def constrained(job, **changes):
    return dataclasses.replace(job, constraints=(parse_constraint("params <= 1e8", job.profile),), **changes)


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
    constraints = (parse_constraint(f"params <= {bound}", job.profile),)
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
    found = standing(tmp_path, "run")
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


RUN = {
    "data": {"vocabulary": 300},
    "profile": {"batch_sizes": [1, 2], "contexts": [24]},
    "constraints": ["decode_ms@b1 <= 10", "decode_tokens_per_s@b2 >= 100"],
    "space": {
        "operators": ["attention", "swiglu"],
        "widths": [32, 64],
        "min_depth": 1,
        "max_depth": 40,
        "genes": {
            "attention": {"head_dim": [16], "group": [1], "qk_norm": ["none"], "window": [None]},
            "swiglu": {"ratio": [2]},
        },
    },
    "gates": {"table": True},
}


@pytest.fixture
def table(tmp_path, monkeypatch):
    """One whose every layer takes 1 ms, embedding and head take 2."""
    config = config_module.parse(RUN, where="x")
    monkeypatch.setattr(table_gate, "default_path", lambda device: tmp_path / "table.json")
    cpu = open_device("cpu")
    table = LatencyTable.open(tmp_path / "table.json", cpu)
    space = ArchitectureSpace(config.space, 300)
    parts = table.missing(members(space), [Point("decode", 1, 24), Point("decode", 2, 24)])
    table.add(
        TableEntry(**dict(part), ms=2.0 if part.name == "rest" else 1.0, error_ms=0.0, rounds=9)
        for part in parts
    )
    return config, space, table


def validated(config, batch, p95, models=25):
    return Validation(
        space=digest_of(config.space), phase="decode", batch=batch, context=24, models=models, p95=p95
    )


def check_of(config, space):
    """The gate of the latency table of a run's device."""
    table = device_table(config.device, config.device_kind, threads=config.profile.threads)
    points = predicted_points(config.parsed_constraints(), config.profile)
    return table_check(table, points, space, device=config.device)


def of_depth(depth):
    return Architecture.from_shorthand("f " * depth, width=32, vocabulary=300, genes={"swiglu": {"ratio": 2}})


def test_the_table_turns_away_who_breaks_a_constraint_by_more_than_its_error(table):
    config, space, kept = table
    kept.add((), [validated(config, 1, 0.25), validated(config, 2, 0.25)])
    check = check_of(config, space)
    assert check(of_depth(8)) is None  # 10 ms, as allowed
    assert check(of_depth(10)) is None  # 12 ms could be 9.6
    assert (
        check(of_depth(11)) == "decode_ms@b1 is predicted as 13 and at most 25.0% off, expected <= 10"
    )  # 13 ms is 10.4 at least
    tokens = config.model_copy(update={"constraints": ("decode_tokens_per_s@b2 >= 100",)})
    check = check_of(tokens, space)
    assert check(of_depth(22)) is None  # 24 ms for two tokens could be 19.2, which is 104 tokens a second
    assert "decode_tokens_per_s@b2 is predicted as 76.92" in check(
        of_depth(24)
    )  # 26 ms is 20.8 at least, 96 tokens a second


def test_a_model_that_the_table_does_not_know_is_let_through(table):
    config, space, kept = table
    kept.add((), [validated(config, 1, 0.0), validated(config, 2, 0.0)])
    wide = Architecture.from_shorthand("f " * 30, width=48, vocabulary=300, genes={"swiglu": {"ratio": 2}})
    assert check_of(config, space)(wide) is None


def test_a_table_that_cannot_serve_is_refused_before_the_search(table):
    config, space, kept = table
    with pytest.raises(
        ConfigError, match=r"lacks \d+ entries of this space; .*`frontrunner table build CONFIG --device cpu`"
    ):
        check_of(config, ArchitectureSpace(config.space, 299))
    with pytest.raises(
        ConfigError,
        match=r"validated on 0 models of this space where constraint 'decode_ms@b1 <= 10' applies",
    ):
        check_of(config, space)
    kept.add((), [validated(config, 1, 0.1), validated(config, 2, 0.1, models=19)])
    with pytest.raises(
        ConfigError, match=r"on 19 models .* 'decode_tokens_per_s@b2 >= 100' applies; expected at least 20"
    ):
        check_of(config, space)
    other = config.model_copy(update={"space": config.space.model_copy(update={"max_depth": 41})})
    with pytest.raises(ConfigError, match="on 0 models of this space"):
        check_of(other, ArchitectureSpace(other.space, 300))


def test_a_search_does_not_propose_who_the_table_turns_away_but_for_audits(
    tmp_path, table, text_folder, corpus
):
    config, _, kept = table
    kept.add((), [validated(config, 1, 0.1), validated(config, 2, 0.1)])
    data = {"source": str(text_folder), "vocabulary": 300, "validation_fraction": 0.2}
    for share in (0.0, 0.3):
        own = config_module.parse(
            {**RUN, **QUICK, "data": data, "gates": {"table": True, "audit": share}, "candidates": 25},
            where="x",
        )
        jobs, path = [], tmp_path / str(share)
        path.mkdir()
        ledger = ledger_module.create(RunFolder(path).ledger, own, started="now")

        def answer(job, jobs=jobs):
            jobs.append(job)
            return Outcome(Evaluation(status="ok", metrics={"loss": 3.0, "decode_ms@b1": 1.0}, seed=0))

        drive(prepare_run(own), RunFolder(path), ledger, PretendExecutor(answer=answer))
        slow = [
            job.architecture.depth + 2 > 11 for job in jobs
        ]  # ms, with a tenth above the 10 that are allowed
        assert [bool(job.table_said) for job in jobs] == slow
        assert any(slow) == (share > 0)
        (gate,) = counted(ledger.entries(), own.parsed_objectives(), ["table"])
        assert gate.seen > gate.turned_away > sum(slow)


STAGED = {**RUN, "space": {**RUN["space"], "min_depth": 3, "max_depth": 14, "stages": {"max_repeats": 4}}}


def staged_run(tmp_path, monkeypatch, text_folder, **changed):
    """A run in three stages, by a table off by half: a layer takes 1 ms for each 32 of the width."""
    data = {"source": str(text_folder), "vocabulary": 300, "validation_fraction": 0.2}
    own = config_module.parse({**STAGED, "data": data, **changed}, where="x")
    monkeypatch.setattr(table_gate, "default_path", lambda device: tmp_path / "table.json")
    table = LatencyTable.open(tmp_path / "table.json", open_device("cpu"))
    parts = table.missing(
        members(make_space(own.space, 300)), [Point("decode", 1, 24), Point("decode", 2, 24)]
    )
    entries = [
        TableEntry(**dict(part), ms=0.001 if part.name == "rest" else part.width / 32, error_ms=0.0, rounds=9)
        for part in parts
    ]
    table.add(entries, [validated(own, batch, 0.5) for batch in (1, 2)])
    return own


def test_a_staged_space_takes_the_largest_width_that_the_table_predicts_in_time(
    tmp_path, monkeypatch, text_folder, corpus
):
    space = prepare_run(staged_run(tmp_path, monkeypatch, text_folder)).space
    rng, seen = np.random.default_rng(0), []
    for member in [*space.seeds(), *(space.sample(rng) for _ in range(300))]:
        child = space.mutate(member, rng)
        seen += [member, child[0]] if child else [member]
    assert {member.width for member in seen} == {32, 64}
    assert all(member.width == (64 if 2 * member.depth < 10 else 32) for member in seen)
    assert max(member.depth for member in seen) == 9  # 10 layers would take 10 ms and the rest


def test_a_target_that_no_width_meets_is_refused_before_the_search(
    tmp_path, monkeypatch, text_folder, corpus
):
    own = staged_run(tmp_path, monkeypatch, text_folder, constraints=["decode_ms@b1 <= 2"])
    with pytest.raises(ConfigError, match="none of 1000 random architectures meets the constraints"):
        check_constraints(prepare_run(own), measured_here=False)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "H100", True),
        ("NVIDIA A100-SXM4-80GB", "A100-80G", True),
        ("NVIDIA RTX A6000", "RTX-A6000", True),
        ("NVIDIA A100-SXM4-80GB", "H100", False),
        ("NVIDIA H200", "H100", False),
        ("Tesla V100-SXM2-16GB", "V100", True),
    ],
)
def test_a_device_is_known_by_its_kind(name, kind, expected):
    assert is_kind(name, kind) == expected


def test_the_table_of_another_machines_device_is_said_to_be_there(table, text_folder, corpus):
    config, _, _ = table
    data = {"source": str(text_folder), "vocabulary": 300, "validation_fraction": 0.2}
    with pytest.raises(
        ConfigError,
        match=r"gates\.table: the table is read on the machine that drives the search; device cuda:99: .*GPU",
    ):
        prepare_run(
            config.model_copy(update={"device": "cuda:99", "data": DataSettings.model_validate(data)})
        )
