"""An evaluation in parts: measured on two kinds of device, then trained by anyone."""

import dataclasses

import pytest

from operators.base.errors import DeviceError
from search.evaluation.evaluate import evaluate, measure
from search.evaluation.outcome import Measured
from search.evaluation.training import train_measured
from search.objectives import Constraint, RunMetrics
from tests.helpers.faulty_operators import architecture_with

KINDS = ("H100", "A100")


@pytest.fixture
def twice(job):
    return dataclasses.replace(job, kinds=KINDS)


def measured_on_both(job, profiler):
    return measure(job, profiler, measure(job, profiler, kind="H100"), kind="A100")


def test_weights_that_are_not_wanted_are_left(job, profiler, tmp_path):
    unwanted = dataclasses.replace(job, keeps_weights=False, weights_file=str(tmp_path / "no"))
    outcome = evaluate(unwanted, profiler)
    assert (outcome.evaluation.status, outcome.weights) == ("ok", None)
    assert not (tmp_path / "no").exists()


def test_an_evaluation_in_parts_is_the_evaluation_with_a_name_for_each_measurement(job, twice, profiler):
    whole = evaluate(job, profiler)
    parts = train_measured(twice, measured_on_both(twice, profiler))
    found, metrics = parts.evaluation, parts.evaluation.metrics
    assert (found.status, found.proxy.curve, parts.weights) == (
        "ok",
        whole.evaluation.proxy.curve,
        whole.weights,
    )
    assert whole.weights is not None
    assert found.profile is None
    for kind in KINDS:
        point = found.profiles[kind].points[0]
        assert metrics[f"decode_ms@b1/{kind}"] == point.decode.median_ms
        assert metrics[f"peak_memory_bytes@b1/{kind}"] == point.peak_memory_bytes
        assert found.errors()[f"decode_ms@b1/{kind}"] == found.profiles[kind].errors()["decode_ms@b1"]
        assert found.backends[f"attention/{kind}"] == whole.evaluation.backends["attention"]
    assert "decode_ms@b1" not in metrics
    for computed in ("params", "state_bytes@b1", "loss"):
        assert metrics[computed] == whole.evaluation.metrics[computed]
    assert found.seconds["profile"] == pytest.approx(
        sum(profile.lock_s for profile in found.profiles.values())
    )
    assert set(RunMetrics(job.profile, kinds=KINDS).names()) <= metrics.keys() | {
        name for name in RunMetrics(job.profile).names() if "accuracy" in name
    }


def test_a_constraint_on_one_kind_is_met_there(twice, profiler):
    bound = Constraint("decode_ms@b1/A100", "<=", 1e-9)
    first = measure(dataclasses.replace(twice, constraints=(bound,)), profiler, kind="H100")
    assert isinstance(first, Measured)
    found = measure(dataclasses.replace(twice, constraints=(bound,)), profiler, first, kind="A100").evaluation
    assert (found.status, found.gate) == ("infeasible", "latency")
    assert "decode_ms@b1/A100 is" in found.reason
    assert set(found.profiles) == set(KINDS)


def test_a_candidate_that_fails_on_one_kind_says_where_and_keeps_what_was_measured(twice, profiler):
    first = measure(twice, profiler, kind="H100")
    broken = dataclasses.replace(twice, architecture=architecture_with("out_of_memory"))
    found = measure(broken, profiler, first, kind="A100").evaluation
    assert found.status == "out_of_memory"
    assert found.reason.startswith("on A100: ")
    assert set(found.profiles) == {"H100"}
    assert "decode_ms@b1/H100" in found.metrics


def test_what_one_kind_cannot_measure_is_asked_of_that_kind_alone(twice, profiler, monkeypatch):
    profile = measure(twice, profiler, kind="H100").profiles["H100"]
    lacking = profile.model_copy(update={"absent": {"prefill_ms": "no clock"}})
    monkeypatch.setattr("search.evaluation.evaluate.profiled", lambda *args, **kwargs: lacking)
    asked = dataclasses.replace(twice, constraints=(Constraint("prefill_ms@b1/A100", "<=", 1e9),))
    assert isinstance(measure(asked, profiler, kind="H100"), Measured)
    with pytest.raises(DeviceError, match="cannot measure prefill_ms@b1/A100: no clock"):
        measure(asked, profiler, kind="A100")
