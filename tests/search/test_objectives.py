from contextlib import nullcontext
from itertools import product

import pytest

from operators.base.errors import ConfigError
from profiler.profile import ProfileSettings
from proxy_train.task_settings import TaskSettings
from proxy_train.tasks import TASKS
from search.objectives import (
    RunMetrics,
    first_broken,
    require_agreement,
)

SETTINGS = ProfileSettings(batch_sizes=(1, 8), contexts=(256,))
FURTHER = ProfileSettings(batch_sizes=(1, 8), contexts=(256, 32_768), largest_batch=True)


def test_less_is_better_for_every_cost():
    metrics = {"loss": 3.0, "decode_tokens_per_s@b8": 500.0}
    assert RunMetrics(SETTINGS).objective("loss").cost(metrics) == 3.0
    assert RunMetrics(SETTINGS).objective("decode_tokens_per_s@b8").cost(metrics) == -500.0


@pytest.mark.parametrize(
    ("text", "value", "kept"),
    [
        ("params <= 3e6", 3e6, True),
        ("params<=3e6", 3e6 + 1, False),
        ("params < 3e6", 3e6, False),
        ("decode_ms@b1 >= 0.5", 0.5, True),
        ("decode_ms@b1 > 0.5", 0.5, False),
        ("params <= 3_000_000", 2_999_999, True),
    ],
)
def test_constraints_mean_what_they_say(text, value, kept):
    constraint = RunMetrics(SETTINGS).constraint(text)
    assert (constraint.broken_by({constraint.metric: value}) is None) is kept


def test_a_constraint_waits_for_its_metric():
    constraint = RunMetrics(SETTINGS).constraint("loss <= 2")
    assert constraint.broken_by({"params": 1.0}) is None
    assert first_broken([constraint], {"loss": 2.5}) == "loss is 2.5, expected <= 2"


@pytest.mark.parametrize("relations", product(["<=", "<", ">=", ">"], repeat=2))
@pytest.mark.parametrize("bounds", [(1, 2), (2, 1), (1, 1)])
def test_constraints_contradict_each_other_where_no_number_meets_both(relations, bounds):
    both = [
        RunMetrics(SETTINGS).constraint(f"loss {relation} {bound}")
        for relation, bound in zip(relations, bounds, strict=True)
    ]
    met = any(first_broken(both, {"loss": value}) is None for value in (0.5, 1, 1.5, 2, 2.5))
    with (
        nullcontext()
        if met
        else pytest.raises(ConfigError, match="contradict each other: no loss meets both")
    ):
        require_agreement(both)


@pytest.mark.parametrize(
    "text",
    ["params", "params <= ", "params == 3", "<= 3", "params <= nan", "params <= 1e", "params <= 3 or 1"],
)
def test_a_constraint_that_is_none_says_how_one_looks(text):
    with pytest.raises(ConfigError, match="as in 'params <= 3e6'"):
        RunMetrics(SETTINGS).constraint(text)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("speed", "expected one of params, .*decode_ms@b1, decode_ms@b8"),
        ("decode_ms", "expected one of decode_ms@b1, decode_ms@b8"),
        ("decode_ms@b3", "expected one of decode_ms@b1, decode_ms@b8"),
        ("loss@b1", "does not depend on the batch size: expected loss"),
    ],
)
def test_an_unknown_metric_says_what_exists(name, says):
    with pytest.raises(ConfigError, match=says):
        RunMetrics(SETTINGS).named(name)


@pytest.mark.parametrize("settings", [SETTINGS, FURTHER], ids=["plain", "further"])
def test_every_name_that_is_offered_is_one_metric_of_its_own(settings):
    offered = RunMetrics(settings, TaskSettings(names=("copy",))).names()
    for name in offered:
        objective = RunMetrics(settings, TaskSettings(names=("copy",))).objective(name)
        assert objective.metric == name
        assert objective.cost({name: 2.0, **{other: 3.0 for other in offered if other != name}}) in (
            2.0,
            -2.0,
        )
    assert len(set(offered)) == len(offered)


def test_further_contexts_have_names_of_their_own():
    assert set(RunMetrics(FURTHER).names()) >= {
        "params",
        "decode_ms@b8",
        "decode_ms@b8.c32768",
        "largest_batch",
        "throughput_tokens_per_s@c32768",
    }
    assert RunMetrics(FURTHER).objective("throughput_tokens_per_s@c32768").maximize
    constraint = RunMetrics(FURTHER).constraint("decode_ms@b1.c32768 <= 2")
    assert constraint.broken_by({"decode_ms@b1": 3.0}) is None
    assert constraint.broken_by({"decode_ms@b1.c32768": 3.0}) == "decode_ms@b1.c32768 is 3, expected <= 2"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "decode_ms@b1.c256",
            "expected one of decode_ms@b1, decode_ms@b8, decode_ms@b1.c32768, decode_ms@b8.c32768",
        ),
        ("decode_ms@c32768", "expected one of decode_ms@b1,"),
        ("largest_batch@b1", "contexts: expected one of largest_batch, largest_batch@c32768"),
        ("power_w@b1", "measured only where the profile asks for it: set profile.energy_seconds"),
    ],
)
def test_a_metric_of_another_context_says_what_exists(name, says):
    with pytest.raises(ConfigError, match=says):
        RunMetrics(FURTHER).named(name)


def test_a_task_s_metric_needs_its_task():
    with pytest.raises(
        ConfigError, match=r"measured only where its task is trained: add copy to tasks\.names"
    ):
        RunMetrics(SETTINGS, TaskSettings(names=("recall",))).objective("copy_accuracy")
    assert (
        RunMetrics(SETTINGS, TaskSettings(names=("recall",)))
        .objective("recall_accuracy")
        .cost({"recall_accuracy": 0.25})
        == -0.25
    )
    assert not {f"{name}_accuracy" for name in TASKS} & set(RunMetrics(SETTINGS).names())
    assert {f"{name}_accuracy" for name in TASKS} < set(
        RunMetrics(SETTINGS, TaskSettings(names=tuple(TASKS))).names()
    )
