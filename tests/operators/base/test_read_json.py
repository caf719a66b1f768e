"""JSON is read as pydantic and `Value` validate what it says, and no other way."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator
from pydantic_core import from_json

from operators.base.read_json import JsonReader
from operators.base.value import Value


class Inner(Value):
    rate: float = 0.5
    sizes: tuple[int, ...] = (1,)
    at: datetime | None = None

    @model_validator(mode="after")
    def _small(self) -> "Inner":
        if self.rate > 10:
            raise ValueError("expected a rate up to 10")
        return self


class Outer(Value):
    count: int = Field(default=1, ge=1)
    limit: float | None = None
    on: bool = False
    name: str | tuple[str, ...] = "x"
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    others: tuple[Inner, ...] = ()
    genes: Mapping[str, tuple[bool | int | float | str | None, ...]] = {}


WHOLE: list[dict[str, Any]] = [
    {},
    {"count": 3, "limit": 2.5, "on": True, "name": ["a", "b"], "kind": "b"},
    {"inner": {"rate": 1, "sizes": [3, 4], "at": "2026-01-02T03:04:05Z"}, "others": [{}, {"rate": 2.0}]},
    {"genes": {"x": [True, 1, 1.0, "1", None], "y": []}},
    {"count": 2.0},  # a whole number may be written so, which pydantic's strict rules refuse
]
BROKEN: list[dict[str, Any]] = [
    {"count": True},
    {"count": "3"},
    {"count": 2.5},
    {"count": 0},
    {"limit": "1e3"},
    {"limit": False},
    {"limit": float("nan")},
    {"on": 1},
    {"on": "yes"},
    {"name": ["x", 5]},
    {"kind": "c"},
    {"cont": 1},
    {"inner": {"rat": 1.0}},
    {"inner": {"rate": 11}},
    {"inner": {"sizes": [1, True]}},
    {"inner": None},
    {"others": [{}, {"sizes": ["1"]}]},
]


@pytest.mark.parametrize("data", WHOLE)
def test_a_value_is_what_validating_its_data_gives(data: dict[str, Any]) -> None:
    found, expected = JsonReader(Outer).read(json.dumps(data)), Outer.model_validate(data)
    assert found == expected
    assert repr(found) == repr(expected)  # 1 and 1.0 and True are equal
    assert found.model_fields_set == expected.model_fields_set


@pytest.mark.parametrize("data", BROKEN)
def test_what_validating_refuses_is_refused_in_the_same_words(data: dict[str, Any]) -> None:
    text = json.dumps(data)
    with pytest.raises(ValidationError) as expected:
        Outer.model_validate(from_json(text))
    with pytest.raises(ValidationError) as found:
        JsonReader(Outer).read(text)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("text", ["", "{", '{"count": 1', "{} {}"])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="column"):
        JsonReader(Outer).read(text)


def test_what_a_value_writes_is_read_by_strict_rules_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The validators in Python take nine tenths of the time."""
    inner = Inner(at=datetime(2026, 1, 2, tzinfo=UTC))
    values = (Outer(count=2, inner=inner, others=(inner, inner), genes={"x": (1, 2.5)}), Outer())
    text = json.dumps([value.model_dump(mode="json") for value in values])
    reader = JsonReader(tuple[Outer, ...])
    monkeypatch.setattr(reader, "_usual", None)
    assert reader.read(text) == values
