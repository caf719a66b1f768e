"""Numbers, text and truth values are not mixed up; errors name what was expected in YAML's words."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError
from pydantic_core._pydantic_core import list_all_errors

from operators.base.errors import expectation, in_words, one_line
from operators.base.value import Value, whole


class Inner(Value):
    rate: float = 0.5
    sizes: tuple[int, ...] = (1,)


class Outer(Value):
    count: int = Field(default=1, ge=1, le=10**9)
    limit: float | None = None
    on: bool = False
    name: str | tuple[str, ...] = "x"
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    genes: Mapping[str, tuple[bool | int | float | str | None, ...]] = {}
    some: tuple[str, ...] = Field(default=("x",), min_length=1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"count": True}, "count: expected a whole number, got true"),
        ({"count": "3"}, "count: expected a whole number, got '3'"),
        ({"count": 2.5}, "count: expected a whole number, got 2.5"),
        (
            {"\u00a0count": 2},
            "unknown key '\\xa0count': expected count, limit, on, name, kind, inner, genes, some",
        ),
        (
            {"": 2, "cont": 1},
            "unknown keys '', cont: expected count, limit, on, name, kind, inner, genes, some",
        ),
        ({"count": 0}, "count: expected at least 1, got 0"),
        ({"limit": "1e3"}, "limit: expected a number, got '1e3'"),
        ({"limit": False}, "limit: expected a number, got false"),
        ({"limit": float("inf")}, "limit: expected a finite number, got inf"),
        ({"on": 1}, "on: expected true or false, got 1"),
        ({"on": "yes"}, "on: expected true or false, got 'yes'"),
        ({"on": None}, "on: expected true or false, got null"),
        ({"inner": {"sizes": [1, True]}}, "inner.sizes.1: expected a whole number, got true"),
        ({"inner": {"rate": "x"}}, "inner.rate: expected a number, got 'x'"),
        ({"inner": 5}, "inner: expected a mapping of keys to values, got 5"),
        ({"inner": {"sizes": 5}}, "inner.sizes: expected a list, got 5"),
        ({"name": 5}, "name: expected text or a list, got 5"),
        ({"name": ["x", 5]}, "name.1: expected text, got 5"),
        ({"kind": "c"}, "kind: expected 'a' or 'b', got 'c'"),
        ({"some": []}, "some: expected at least 1 entries, got 0"),
        ({"some": [[1, 2, 3, 4, 5, True]]}, "some.0: expected text, got [1, 2, 3, 4, ...]"),
        ([], "expected a mapping of keys to values, got []"),
    ],
)
def test_one_kind_of_value_is_never_taken_for_another(data: Any, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    assert one_line(caught.value) == says


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    read = Outer.model_validate({"count": 1e6, "limit": 3, "inner": {"sizes": [2.0]}})
    assert (read.count, type(read.count), read.limit, read.inner.sizes) == (1_000_000, int, 3.0, (2,))


def test_what_may_be_of_several_kinds_keeps_its_own() -> None:
    genes = Outer.model_validate({"genes": {"a": [True, 1, 1.5, "1", None]}}).genes["a"]
    assert [(type(value), value) for value in genes] == [
        (bool, True),
        (int, 1),
        (float, 1.5),
        (str, "1"),
        (type(None), None),
    ]


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), (3.0, 3), (1e6, 10**6), (3.5, None), (True, None), ("3", None), (None, None)],
)
def test_whole(value: Any, number: int | None) -> None:
    assert whole(value) == number


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_whole_is_asked_of_any_number(value: Any) -> None:
    assert whole(value) == (value if isinstance(value, int) else None)


def test_no_kind_of_finding_is_told_in_pydantics_words() -> None:
    """All kinds of errors of pydantic, also ones that no model here can have."""
    for kind in list_all_errors():
        message = expectation(kind["type"], kind["example_context"])
        assert not re.search(r"[Ii]nput|[Tt]uple|dictionary|instance|should|valid|String|\{", message), (
            message
        )


def test_what_was_found_is_short() -> None:
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep] * 50
    assert len(in_words(deep)) < 200
    assert len(in_words("x" * 10_000)) < 100
    assert in_words({"a": None, "b": [True]}) == "{'a': null, 'b': [true]}"


def test_a_changed_copy_computes_anew_what_the_old_value_kept() -> None:
    class Rectangle(Value):
        sides: tuple[int, int]
        name: str = ""

        @cached_property
        def area(self) -> int:
            return self.sides[0] * self.sides[1]

    small = Rectangle(sides=(2, 3))
    assert small.area == 6
    assert small.model_copy(update={"sides": (2, 5)}).area == 10
    assert small.area == 6
    assert "area" in small.model_copy().__dict__  # nothing changed, so that it is still right
