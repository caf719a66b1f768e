"""Architectures as values: reading, writing, identity, and one-line errors for impossible ones."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from operators import Architecture, registry
from operators.architecture import layers_from_shorthand
from operators.base.errors import ArchitectureError

ATTENTION = {"heads": 4, "kv_heads": 2, "head_dim": 16}


def some(**changes: Any) -> Architecture:
    return Architecture.parse({"width": 64, "vocabulary": 100, "layers": "a f a r", **changes})


@pytest.mark.parametrize("symbol", [registry.get(name).symbol for name in registry.names()])
def test_round_trips_keep_every_operator(symbol: str, tmp_path: Path) -> None:
    architecture = some(
        layers=f"{symbol} f",
        name="x",
        meta_tokens=3,
        rope={"theta": 5e5},
        tied_embeddings=False,
        norm_eps=1e-6,
    )
    assert Architecture.from_yaml(architecture.to_yaml()) == architecture
    assert Architecture.from_json(architecture.to_json()) == architecture
    for suffix, text in ((".yaml", architecture.to_yaml()), (".json", architecture.to_json())):
        path = tmp_path / f"architecture{suffix}"
        path.write_text(text)
        assert Architecture.load(path) == architecture
        assert Architecture.load(path).digest() == architecture.digest()


def test_no_positions_round_trip() -> None:
    architecture = some(rope=None)
    assert Architecture.from_yaml(architecture.to_yaml()).rope is None
    assert architecture.digest() != some().digest()


def test_shorthand_is_symbols_names_lists_and_mappings() -> None:
    expected = some(layers="a f r")
    layers = [layer.model_dump() for layer in expected.layers]
    same: list[Any] = [
        "attention swiglu relu2",
        "a  swiglu\nr",
        ["a", "f", "r"],
        ["attention", layers[1], {"operator": "relu2"}],
        layers,
    ]
    for given in same:
        assert some(layers=given) == expected
    assert expected.shorthand == "a f r"
    assert expected.depth == 3
    assert Architecture.from_shorthand("a f r", width=64, vocabulary=100) == expected


def test_shorthand_takes_genes() -> None:
    small, large = (
        layers_from_shorthand("f", width=64, genes={"swiglu": {"ratio": ratio}}) for ratio in (2.0, 4.0)
    )
    assert some(layers=small).layers[0].shape.genes(64) == {"ratio": 2.0}
    assert some(layers=large).layers[0].shape.genes(64) == {"ratio": 4.0}


def test_resized_keeps_genes() -> None:
    architecture = some(layers="f r")
    assert [layer.shape.genes(128) for layer in architecture.resized(128).layers] == [
        layer.shape.genes(64) for layer in architecture.layers
    ]
    assert architecture.resized(128).resized(64) == architecture


def test_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        some().width = 128  # type: ignore[misc]


OTHERS: dict[str, Any] = {
    "width": 96,
    "vocabulary": 101,
    "layers": "a f r a",
    "tied_embeddings": False,
    "normalized_head": True,
    "meta_tokens": 1,
    "rope": {"theta": 500_000.0},
    "norm_eps": 1e-6,
}


@pytest.mark.parametrize("field", sorted(Architecture.model_fields))
def test_digest_depends_on_every_field_but_the_name(field: str) -> None:
    if field == "name":
        assert some(name="another").digest() == some().digest()
    else:
        assert some(**{field: OTHERS[field]}).digest() != some().digest()


@pytest.mark.parametrize(
    "change",
    [
        {"norm": "layernorm"},
        {"norm_position": "after"},
        {"operator": "relu2", "shape": {"hidden": 192}},
        {"shape": {"hidden": 193}},
    ],
)
def test_digest_depends_on_every_part_of_a_layer(change: dict[str, Any]) -> None:
    layer = {"operator": "swiglu", "shape": {"hidden": 192}}
    assert some(layers=["a", {**layer, **change}]).digest() != some(layers=["a", layer]).digest()


@pytest.mark.parametrize("field", ["heads", "kv_heads", "head_dim", "qk_norm", "window"])
def test_digest_depends_on_every_part_of_a_shape(field: str) -> None:
    other = {"heads": 8, "kv_heads": 4, "head_dim": 32, "qk_norm": "head", "window": 8}[field]
    plain, changed = (
        some(layers=[{"operator": "attention", "shape": shape}])
        for shape in (ATTENTION, {**ATTENTION, field: other})
    )
    assert plain.digest() != changed.digest()


def test_digest_is_the_same_in_another_process() -> None:
    code = f"from operators import Architecture; print(Architecture.from_json({some().to_json()!r}).digest())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == some().digest()
    assert len(some().digest()) == 64


def attention(**shape: Any) -> dict[str, Any]:
    return {"layers": ["f", {"operator": "attention", "shape": {**ATTENTION, **shape}}]}


BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown operator": ({"layers": "a zz f"}, ("layers.1", "'zz'", "a (attention)")),
    "misspelled operator": (
        {"layers": [{"operator": "atention", "shape": {}}]},
        ("layers.0", "did you mean attention"),
    ),
    "no layers": ({"layers": []}, ("layers", "at least 1")),
    "empty shorthand": ({"layers": ""}, ("layers", "at least 1")),
    "layers are a number": ({"layers": 5}, ("layers", "got 5")),
    "a layer is a number": ({"layers": ["f", 5]}, ("layers.1", "got 5")),
    "heads without whole groups": (
        attention(heads=3),
        ("layers.1", "attention", "multiple of kv_heads", "heads 3", "kv_heads 2"),
    ),
    "no heads": (
        attention(heads=0),
        ("layers.1", "attention", "heads", "expected at least 1", "got 0"),
    ),
    "odd head dimension": (
        attention(head_dim=7),
        ("layers.1", "attention", "head_dim", "multiple of 2", "got 7"),
    ),
    "missing shape fields": (
        {"layers": ["f", {"operator": "attention", "shape": {"heads": 4}}]},
        ("layers.1", "attention", "kv_heads: missing", "head_dim: missing"),
    ),
    "unknown key in a shape": (attention(colour=1), ("layers.1", "attention", "colour", "unknown key")),
    "unknown key in a layer": (
        {"layers": [{"operator": "swiglu", "colour": 1}]},
        ("layers.0", "colour", "unknown key"),
    ),
    "unknown key": ({"colour": 1}, ("colour", "unknown key")),
    "unknown normalization": (
        {"layers": [{"operator": "swiglu", "norm": "batch"}]},
        ("layers.0", "norm", "'rmsnorm' or 'layernorm'", "'batch'"),
    ),
    "width too small": ({"width": 7}, ("width", "from 8 to 65536", "got 7")),
    "width too large": ({"width": 65_537}, ("width", "from 8 to 65536", "got 65537")),
    "width is text": ({"width": "wide"}, ("width", "whole number", "'wide'")),
    "no width": ({"width": None}, ("width", "expected", "null")),
    "vocabulary too small": ({"vocabulary": 1}, ("vocabulary", "expected at least 2", "got 1")),
    "negative meta tokens": ({"meta_tokens": -1}, ("meta_tokens", "expected at least 0", "got -1")),
    "negative theta": ({"rope": {"theta": -1.0}}, ("rope.theta", "more than 0", "got -1")),
    "norm_eps too large": ({"norm_eps": 2}, ("norm_eps", "less than 1", "got 2")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_names_place_and_expectation(case: str) -> None:
    changes, expected = BAD[case]
    with pytest.raises(ArchitectureError) as caught:
        Architecture.parse({"width": 64, "vocabulary": 100, "layers": "a f", **changes}, where="model.yaml")
    message = str(caught.value)
    assert message.startswith("model.yaml: ")
    assert "\n" not in message
    assert "pydantic" not in message
    for part in expected:
        assert part in message


@pytest.mark.parametrize("field", ["width", "vocabulary", "layers"])
def test_missing_field_is_named(field: str) -> None:
    data = {"width": 64, "vocabulary": 100, "layers": "a f"}
    del data[field]
    with pytest.raises(ArchitectureError, match=field):
        Architecture.parse(data)


def no_file(folder: Path) -> Path:
    return folder / "absent.yaml"


def broken(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (no_file, "cannot be read: No such file"),
        (lambda folder: folder, "cannot be read"),
        (broken("x.yaml", b"\xff\xfe\x00"), "cannot be read"),
        (broken("x.yaml", b"layers: [a, f"), "not YAML"),
        (
            broken("x.yaml", b"- a\n- f"),
            "expected a mapping with width, vocabulary and layers, got ['a', 'f']",
        ),
        (broken("x.yaml", b""), "expected a mapping with width, vocabulary and layers"),
        (broken("x.yaml", b"width: 64\nvocabulary: 9\nlayers: a zz"), "layers.1: unknown operator 'zz'"),
        (broken("x.json", b"{"), "not JSON"),
        (broken("x.json", b"[1]"), "got [1]"),
    ],
)
def test_bad_files_are_named(make: Callable[[Path], Path], expected: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(ArchitectureError) as caught:
        Architecture.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_cannot_make_objects() -> None:
    with pytest.raises(ArchitectureError, match="not YAML"):
        Architecture.from_yaml("width: !!python/object/apply:os.getcwd []")


@pytest.mark.parametrize("text", ["", "   "])
def test_shorthand_needs_an_operator(text: str) -> None:
    with pytest.raises(ArchitectureError, match="expected at least one operator"):
        layers_from_shorthand(text, width=64)


def test_genes_that_do_not_exist_name_operator_and_width() -> None:
    with pytest.raises(ArchitectureError, match=r"swiglu at width 64: .*colour"):
        layers_from_shorthand("f", width=64, genes={"swiglu": {"colour": 1}})
