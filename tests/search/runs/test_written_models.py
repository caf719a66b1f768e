"""Models of a ledger are what they were written as, and what is damaged is refused wherever it occurs."""

import copy
import json
from typing import Any

import numpy as np
import pytest

from operators.base.errors import ArchitectureError
from operators.vision.vision_language import parse_model
from search.config.run import RunConfig
from search.runs.written_models import WrittenModels
from search.spaces.free import ArchitectureSpace
from tests.helpers.vision_models import vision_language

WHERE = "architecture"


@pytest.fixture(scope="module")
def written(tiny_config: RunConfig) -> list[dict[str, Any]]:
    space, rng = ArchitectureSpace(tiny_config.space, 300), np.random.default_rng(0)
    return [json.loads(space.sample(rng).to_json()) for _ in range(40)]


def test_every_model_is_what_parsing_it_alone_gives(written: list[dict[str, Any]]) -> None:
    models = WrittenModels()
    named = [{**each, "name": f"model {number}"} for number, each in enumerate(written)]
    for each in (*written, *named, *written):
        expected = parse_model(copy.deepcopy(each), where=WHERE)
        found = models.read(each)
        assert found == expected
        assert found.name == each.get("name", "")
        assert found.digest() == expected.digest()


def test_a_layer_that_occurs_again_is_the_same_object(written: list[dict[str, Any]]) -> None:
    models = WrittenModels()
    first = models.read(written[0])
    again = models.read(copy.deepcopy({**written[0], "layers": written[0]["layers"][::-1]}))
    assert [id(layer) for layer in again.layers] == [id(layer) for layer in first.layers[::-1]]


@pytest.mark.parametrize(
    "damage",
    [
        {"layers": []},
        {"layers": None},
        {"name": 3},
        {"width": "16"},
        {"vocabulary": -1},
        {"odd": 1},
        {"tied_embeddings": 1},
    ],
)
def test_what_is_damaged_is_refused_behind_whole_ones(
    written: list[dict[str, Any]], damage: dict[str, Any]
) -> None:
    models = WrittenModels()
    for each in written:
        models.read(each)
    with pytest.raises(ArchitectureError) as alone:
        parse_model({**written[0], **damage}, where=WHERE)
    with pytest.raises(ArchitectureError) as behind:
        models.read({**written[0], **damage})
    assert str(behind.value) == str(alone.value)


def test_a_damaged_layer_is_refused_behind_whole_ones(written: list[dict[str, Any]]) -> None:
    models = WrittenModels()
    models.read(written[0])
    for layer in ({**written[0]["layers"][0], "operator": "abacus"}, None, 3, "?"):
        damaged = {**written[0], "layers": [*written[0]["layers"], layer]}
        for _ in range(2):  # a refused model leaves nothing behind
            with pytest.raises(ArchitectureError):
                models.read(damaged)


def test_models_that_see_are_read_too() -> None:
    model = vision_language()
    assert WrittenModels().read(json.loads(model.to_json())) == model
