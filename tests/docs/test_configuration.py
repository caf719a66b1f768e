"""docs/configuration.md against the models of a run: every key is there with its default, and no other."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from operators import registry
from operators.base import plain_yaml
from operators.base.value import Value
from search.config.run import RunConfig
from search.config.space import SpaceSettings, StageSettings
from tests.docs.pages import ROOT, rows

TEXT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
IN_WORDS = {
    "space.operators": ("all", SpaceSettings().operators, registry.names()),
    "space.stages.ratios": ("nine", len(StageSettings().ratios), 9),
}
"""Defaults that the page gives in words: the word, what it stands for, what that must be."""


def section_of(field: FieldInfo) -> type[Value] | None:
    """The settings that a key holds, where it is a section."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def keys(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its default; a section that there always is, is its keys alone."""
    for name, field in model.model_fields.items():
        inner, default = section_of(field), field.get_default(call_default_factory=True)
        if inner is None or default is None:
            yield before + name, default
        if inner is not None:
            yield from keys(inner, f"{before}{name}.")


def plain(value: Any) -> Any:
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def test_every_key_has_its_default_and_no_key_is_made_up():
    shown = {key.strip("`"): default for key, default, _ in (row for row in rows(TEXT) if len(row) == 3)}
    expected = dict(keys(RunConfig))
    assert sorted(shown) == sorted(expected)
    for key, default in expected.items():
        if key in IN_WORDS:
            word, stands_for, right = IN_WORDS[key]
            assert (shown[key], stands_for) == (word, right)
        else:
            assert plain_yaml.parse(shown[key].strip("`")) == plain(default), key


def test_sections_have_a_heading_each():
    for name, field in RunConfig.model_fields.items():
        if section_of(field) is not None:
            assert f"`{name}`" in "".join(line for line in TEXT.splitlines() if line.startswith("## ")), name
