"""Reading follows YAML 1.2's core schema; PyYAML's reader of YAML 1.1 reads what we write."""

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from operators import Architecture
from operators.base import plain_yaml
from operators.base.errors import ArchitectureError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # https://yaml.org/spec/1.2.2/#1032-tag-resolution
        *((text, None) for text in ("null", "Null", "NULL", "~", "")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        ("0", 0),
        ("-0", 0),
        ("0100", 100),
        ("08", 8),
        ("+12", 12),
        ("-19", -19),
        ("0o7", 7),
        ("0o10", 8),
        ("0x3A", 58),
        ("0.", 0.0),
        (".5", 0.5),
        ("-2E+05", -200000.0),
        ("+12e03", 12000.0),
        ("1e6", 1e6),
        ("3e-4", 3e-4),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("+.Inf", math.inf),
        # text in 1.2, something else in 1.1
        *(
            (text, text)
            for text in (
                "yes",
                "no",
                "on",
                "OFF",
                "y",
                "N",
                "1:30",
                "12:30:45",
                "2026-01-01",
                "0b1",
                "=",
                "tRUE",
            )
        ),
        *((text, text) for text in ("0o8", "0X1", "-0x1", "1e", ".", "+", "1.2.3", "e3")),
        # our own rule
        ("1_000_000", 1_000_000),
        ("1_000.5", 1000.5),
        *((text, text) for text in ("1__0", "_1", "1_", "0x_1")),
        # quotes and tags
        ("'010'", "010"),
        ('"1e6"', "1e6"),
        ("!!str 010", "010"),
        ("!!int 0100", 100),
        ("!!float 3", 3.0),
        ("%YAML 1.2\n---\n010", 10),
        ("\ufeff{a: 1}", {"a": 1}),
        ("x: &x {a: 1, b: 2}\ny: {<<: *x, a: 3}", {"x": {"a": 1, "b": 2}, "y": {"a": 3, "b": 2}}),
    ],
)
def test_a_scalar_is_what_the_core_schema_says(text: str, value: Any) -> None:
    read = plain_yaml.parse(text)
    assert (read, type(read)) == (value, type(value))


def test_not_a_number_is_one() -> None:
    assert math.isnan(plain_yaml.parse(".NaN"))


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", r"line 3, column 1: key 'a' is given twice"),
        ("{1: a, 0x1: b}", "key '0x1' is given twice"),
        ("x: {'a': 1, a: 2}", "key 'a' is given twice"),
        ("{<<: {a: 1}, <<: {a: 2}}", "key '<<' is given twice"),
        ("? [a]\n: b", "expected a key of one word"),
        ("- a\n---\n- b", "expected a single document"),
        ("!!python/object/apply:os.system [x]", "is not one of YAML's core schema"),
        ("!!binary aGk=", "'binary' is not one of"),
        ("!!timestamp 2026-01-01", "'timestamp' is not one of"),
        ("!!set {a}", "'set' is not one of"),
        ("!mine x", "'!mine' is not one of"),
        ("!!int yes", "'yes' is not of the type 'int'"),
        ("!!bool 1", "'1' is not of the type 'bool'"),
        ("&a [*a]", "an alias stands for something that holds it"),
        ("&a {<<: *a}", "an alias stands for something that holds it"),
        (bomb(), "aliases stand for more than 1,000,000 values"),
        ("[" * 1000, "nested too deeply"),
        ("9" * 5000, "Exceeds the limit"),
        ("a: [1,", "line 1, column 7"),
        ("*a", "undefined alias"),
        ("a\0b", "special characters"),
        ("%YAML 2.0\n---\na", "incompatible YAML document"),
    ],
)
def test_what_has_no_one_meaning_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        plain_yaml.parse(text)
    assert "\n" not in str(caught.value)


TEMPTING = (
    *("yes", "no", "on", "off", "y", "N", "~", "null", "True", "=", "<<", "1e3", "0100", "0o10", "1:30"),
    *("2026-01-01", ".inf", "1_000", "0x1", "-.5"),
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.from_regex(r"[-+.0-9_eExXob:]{1,6}", fullmatch=True)
    | st.sampled_from(TEMPTING),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_written_is_read_back_by_this_reader_and_by_one_of_yaml_1_1(data: Any) -> None:
    text = plain_yaml.dump(data)
    assert plain_yaml.parse(text) == data
    assert yaml.safe_load(text) == data


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"width": 8, "width": 16}', "key 'width' is given twice"),
        ('{"norm_eps": NaN}', "NaN is no number of JSON"),
        ('{"norm_eps": -Infinity}', "-Infinity is no number of JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "not JSON"),
    ],
)
def test_json_is_read_as_strictly(text: str, says: str) -> None:
    with pytest.raises(ArchitectureError, match=f"^file: .*{says}"):
        Architecture.from_json(text, where="file")


@pytest.mark.parametrize(
    ("text", "value"), [("2e6", 2e6), ("2_000_000", 2_000_000), ("0x10", 16), ("010", 10), ("-3", -3)]
)
def test_a_number_of_a_command_is_one_of_yaml(text: str, value: float) -> None:
    assert plain_yaml.number(text) == value


@pytest.mark.parametrize("text", ["", " 1", "1:30", "true", "null", "'1'", "1 2", "٣"])
def test_other_text_is_no_number(text: str) -> None:
    assert plain_yaml.number(text) is None
