import pytest

from operators.errors import ConfigError
from search.objectives import first_broken, metric_of, names, parse_constraint, parse_objective


def test_less_is_better_for_every_cost():
    metrics = {"loss": 3.0, "decode_tokens_per_s@b8": 500.0}
    assert parse_objective("loss", (1, 8)).cost(metrics) == 3.0
    assert parse_objective("decode_tokens_per_s@b8", (1, 8)).cost(metrics) == -500.0


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
    constraint = parse_constraint(text, (1,))
    assert (constraint.broken_by({constraint.metric: value}) is None) is kept


def test_a_constraint_waits_for_its_metric():
    constraint = parse_constraint("loss <= 2", (1,))
    assert constraint.broken_by({"params": 1.0}) is None
    assert first_broken([constraint], {"loss": 2.5}) == "loss is 2.5, expected <= 2"


@pytest.mark.parametrize("text", ["params", "params <= ", "params == 3", "<= 3", "params <= nan", "params <= 1e", "params <= 3 or 1"])
def test_a_constraint_that_is_none_says_how_one_looks(text):
    with pytest.raises(ConfigError, match="as in 'params <= 3e6'"):
        parse_constraint(text, (1,))


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
        metric_of(name, (1, 8))


def test_every_name_that_is_offered_is_accepted():
    for name in names((1, 8)):
        metric_of(name, (1, 8))
