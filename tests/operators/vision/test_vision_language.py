"""Vision-language models as values: reading, writing, identity, and one-line errors for impossible ones."""

from pathlib import Path
from typing import Any

import pytest

from operators import Architecture, VisionLanguage
from operators.base.errors import ArchitectureError
from operators.vision.vision_language import load_model
from tests.helpers.vision_models import vision_language

HYBRID = [{"repeat": 1, "norm": "layernorm"}, {"repeat": 1, "norm": "rmsnorm", "norm_position": "after"}]


def test_a_file_round_trips_and_norms_are_written_in_runs(tmp_path: Path) -> None:
    value = vision_language(norms=HYBRID, rope_theta=100, qk_norm="head", position_grid=2)
    for suffix, text in ((".yaml", value.to_yaml()), (".json", value.to_json())):
        file = tmp_path / f"model{suffix}"
        file.write_text(text)
        assert VisionLanguage.load(file) == load_model(file) == value
        assert VisionLanguage.load(file).digest() == value.digest()
    norms = [norm.norm for norm in value.tower.norms]
    assert norms == ["layernorm", "rmsnorm"]
    deep = vision_language(depth=5, norms=[{"repeat": 4}, {"norm": "rmsnorm", "norm_position": "after"}])
    assert [run["repeat"] for run in deep.model_dump()["tower"]["norms"]] == [4, 1]


def test_ways_to_say_one_model_have_one_digest() -> None:
    plain = vision_language()
    same = [
        vision_language(norms={"norm": "layernorm"}),
        vision_language(norms=[{}, {"norm_position": "before"}]),
        vision_language(norms=[{"repeat": 1}, {"repeat": 1}]),
        vision_language(position_grid=4),
    ]
    assert {value.digest() for value in same} == {plain.digest()}
    assert vision_language(position_grid=3).digest() != plain.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 32},
        {"patch_size": 8},
        {"width": 48},
        {"depth": 3},
        {"heads": 2},
        {"hidden": 41},
        {"feedforward": "swiglu"},
        {"bias": False},
        {"qk_norm": "full"},
        {"norms": HYBRID},
        {"final_norm": "rmsnorm"},
        {"position_bias": False},
        {"rope_theta": 10.0},
        {"norm_eps": 1e-5},
        {"projector": {"pixel_shuffle": 1}},
        {"projector": {"hidden": [8]}},
        {"projector": {"norm": True}},
        {"projector": {"bias": False}},
        {"language": {"width": 40}},
        {"image_token": 6},
    ],
)
def test_the_digest_depends_on_every_field(change: dict[str, Any]) -> None:
    changed = vision_language(**change)
    assert changed.digest() != vision_language().digest()
    assert VisionLanguage.from_yaml(changed.to_yaml()) == changed
    assert changed.model_copy(update={"name": "another"}).digest() == changed.digest()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"patch_size": 5},
            "tower: expected image_size to be a multiple of patch_size, got image_size 16 and patch_size 5",
        ),
        ({"heads": 5}, "tower: expected width to be a multiple of heads, got width 24 and heads 5"),
        ({"heads": 4, "rope_theta": 10.0}, "24 / heads 4 = 6"),
        ({"position_bias": False, "position_grid": 2}, "position_grid: expected position_bias to be true"),
        ({"norms": [{}]}, "norms: expected one for each of 2 blocks, as depth says, got 1"),
        ({"norms": [{"repeat": 0}]}, "norms.0.repeat: expected a whole number from 1 to 512, got 0"),
        ({"norms": [{"norm": "batch"}, {}]}, "tower.norms.0.norm: expected 'rmsnorm' or 'layernorm'"),
        ({"norms": 5}, "tower.norms.0: expected a mapping"),
        ({"depth": 0}, "tower.depth: expected at least 1, got 0"),
        ({"feedforward": "relu"}, "tower.feedforward: expected 'gelu', 'swiglu' or 'relu2', got 'relu'"),
        ({"colour": 1}, "tower: unknown key colour"),
        ({"projector": {"pixel_shuffle": 3}}, "projector.pixel_shuffle: expected 1, 2 or 4, got 3"),
        (
            {"image_size": 12, "projector": {"pixel_shuffle": 2}},
            "expected a divisor of the 3 patches along a side (image_size 12 / patch_size 4), got 2",
        ),
        ({"projector": {"hidden": [8, 8, 8]}}, "projector.hidden: expected at most 2 entries, got 3"),
        ({"image_token": 50}, "image_token: expected an id below language.vocabulary, 50, got 50"),
        ({"language": {"layers": "a zz"}}, "language: layers.1: unknown operator 'zz'"),
    ],
)
def test_an_impossible_model_is_one_line(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        vision_language(**change)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_kind_of_model_refuses_the_other(tmp_path: Path) -> None:
    language, vision = tmp_path / "language.yaml", tmp_path / "vision.yaml"
    language.write_text("{width: 16, vocabulary: 9, layers: f}")
    vision.write_text(vision_language().to_yaml())
    with pytest.raises(
        ArchitectureError, match=r"vision\.yaml: a vision-language model, expected a language"
    ):
        Architecture.load(vision)
    with pytest.raises(ArchitectureError, match=r"language\.yaml: a language model, expected a vision-"):
        VisionLanguage.load(language)
    assert load_model(language) == Architecture.load(language)
    with pytest.raises(ArchitectureError, match="expected a mapping with tower, projector, language and"):
        VisionLanguage.from_yaml("- 5")
