"""The space of architectures: every member legal, every mutation what its name says, every contradiction an
error.
"""

import copy
from dataclasses import fields
from math import isfinite
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator
from pydantic import ValidationError

from operators import Architecture, registry
from operators.base.errors import ConfigError, one_line
from operators.cost import parameters
from search.config.choices import norm_of
from search.config.space import SpaceSettings
from search.spaces import mutate
from search.spaces.free import ArchitectureSpace
from tests.helpers.small_spaces import FIXED_GENES, NORMS, SMALL, SPACES, VOCABULARY, WIDE, check, members

SEEDS = st.integers(0, 2**32 - 1)
NAMES = st.sampled_from(sorted(SPACES))


@given(NAMES, SEEDS)
@settings(deadline=None, max_examples=100)
def test_samples_mutations_and_crossovers_are_legal_and_repeatable(name: str, seed: int) -> None:
    space = SPACES[name]

    def family(rng: Generator) -> list[Architecture]:
        a, b = space.sample(rng), space.sample(rng)
        mutated, crossed = space.mutate(a, rng), space.crossover(a, b, rng)
        assert mutated is not None
        assert mutated[1] in mutate.MUTATIONS
        assert space.key(mutated[0]) != space.key(a)
        return [a, b, mutated[0], *([crossed] if crossed else [])]

    first = family(np.random.default_rng(seed))
    for member in first:
        check(space, member)
    assert first == family(np.random.default_rng(seed))


@pytest.mark.parametrize("name", sorted(SPACES))
def test_long_lineages_stay_legal(name: str) -> None:
    space, rng = SPACES[name], np.random.default_rng(1)
    member = space.sample(rng)
    for _ in range(100):
        mutated = space.mutate(member, rng)
        assert mutated is not None
        member = mutated[0]
        check(space, member)


@pytest.mark.parametrize("mutation", sorted(mutate.MUTATIONS))
def test_mutations_keep_to_the_choices_and_forget_the_name(mutation: str) -> None:
    space, rng, applied = SPACES["wide"], np.random.default_rng(2), 0
    for parent in members(space):
        child = mutate.MUTATIONS[mutation](parent.model_copy(update={"name": "named"}), space.choices, rng)
        if child is not None:
            applied += 1
            assert child.name == ""
            assert space.contains(child) is None
            check_does_what_its_name_says(mutation, parent, child)
    assert applied > 10


def check_does_what_its_name_says(mutation: str, parent: Architecture, child: Architecture) -> None:
    old, new = parent.layers, child.layers
    changed = [(a, b) for a, b in zip(old, new, strict=False) if a != b]
    growth = len(new) - len(old)
    if mutation not in ("width", "wider", "deeper"):
        assert child.width == parent.width
    if mutation != "meta_tokens":
        assert child.meta_tokens == parent.meta_tokens
    if mutation == "replace":
        assert growth == 0
        assert [a.operator == b.operator for a, b in changed] == [False]
    elif mutation in ("insert", "delete"):
        longer, shorter = (new, old) if mutation == "insert" else (old, new)
        assert abs(growth) == 1
        assert any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
    elif mutation == "swap":
        (a, b), (c, d) = changed
        assert (a, b) == (d, c)
    elif mutation in ("repeat_block", "cut_block"):
        longer, shorter = (new, old) if mutation == "repeat_block" else (old, new)
        size = abs(growth)
        assert size >= 2
        starts = [i for i in range(len(longer) - size + 1) if longer[:i] + longer[i + size :] == shorter]
        assert starts
        if mutation == "repeat_block":
            assert any(i >= size and longer[i - size : i] == longer[i : i + size] for i in starts)
    elif mutation in ("wider", "deeper"):
        assert (child.width > parent.width) == (mutation == "wider")
        assert (growth < 0) == (mutation == "wider")
        assert abs(parameters(child) / parameters(parent) - 1) <= mutate.TRADE_TOLERANCE
        assert {layer.operator for layer in new} <= {layer.operator for layer in old}
    elif mutation == "width":
        assert child.width != parent.width
        assert [layer.operator for layer in new] == [layer.operator for layer in old]
    elif mutation in ("ratio", "shape"):
        assert growth == 0
        assert changed
        assert len({a.operator for a, b in changed}) == 1
        assert all(a.operator == b.operator for a, b in changed)
        assert (registry.get(changed[0][0].operator).kind == "feedforward") == (mutation == "ratio")
        values = [
            (SPACES["wide"].choices.values(a, parent.width), SPACES["wide"].choices.values(b, parent.width))
            for a, b in changed
        ]
        assert all(a and b and sum(x != y for x, y in zip(a, b, strict=True)) >= 1 for a, b in values)
    elif mutation == "normalization":
        norms = {norm_of(b) for _, b in changed}
        assert len(norms) == 1
        assert norms <= set(NORMS)
        assert [layer.shape for layer in new] == [layer.shape for layer in old]
    else:
        assert child.meta_tokens != parent.meta_tokens
        assert new == old


def test_a_split_of_normalizations_by_depth_is_two_mutations_away() -> None:
    """Shakti-VLM (arXiv 2502.17092): LayerNorm before the sub-layer in the first layers, RMSNorm after it in
    the rest.
    """
    space, found = SPACES["wide"], False
    parent = Architecture.from_shorthand("a f a f", width=64, vocabulary=VOCABULARY)
    split = [("layernorm", "before")] * 2 + [("rmsnorm", "after")] * 2
    for seed in range(400):
        rng = np.random.default_rng(seed)
        child = mutate.change_normalization(parent, space.choices, rng)
        grandchild = child and mutate.change_normalization(child, space.choices, rng)
        found = found or (grandchild is not None and [norm_of(layer) for layer in grandchild.layers] == split)
    assert found


@pytest.mark.parametrize("name", sorted(SPACES))
def test_a_member_read_from_a_file_is_the_same_member(name: str) -> None:
    """Its layers are equal to those of the space but other objects; it has the same key, features and
    children.
    """
    space = SPACES[name]
    for member in members(space, 20):
        read = Architecture.from_json(member.to_json())
        assert space.contains(read) is None
        assert space.key(read) == space.key(member)
        assert space.features(read) == space.features(member)
        assert space.mutate(read, np.random.default_rng(5)) == space.mutate(member, np.random.default_rng(5))
        assert 10 ** space.features(read)["log10_params"] == pytest.approx(parameters(read), rel=1e-9)


def test_a_layer_of_another_width_is_none_of_the_choices() -> None:
    """Also where it is the very object that another width has."""
    space = SPACES["wide"]
    for member in members(space, 20):
        for width in space.choices.widths:
            elsewhere = member.model_copy(update={"width": width})
            fits = all(space.choices.values(layer, width) for layer in member.layers)
            assert (space.contains(elsewhere) is None) == fits


def test_a_copy_of_choices_does_not_know_layers_by_what_they_were_in_memory() -> None:
    choices = SPACES["small"].choices
    assert choices.parts(choices.at("attention", 64), 64)
    assert set(vars(copy.deepcopy(choices))) == {field.name for field in fields(choices)}


def test_crossover_takes_the_beginning_of_one_and_the_end_of_the_other() -> None:
    space, rng = SPACES["wide"], np.random.default_rng(0)
    a = Architecture.from_shorthand(
        "a f " * 5, width=64, vocabulary=VOCABULARY, genes={"attention": {"head_dim": 32}}
    )
    b = Architecture.from_shorthand(
        "m r " * 10, width=128, vocabulary=VOCABULARY, genes={"mamba2": {"head_dim": 64}}
    )
    widths = set()
    for _ in range(50):
        child = space.crossover(a, b, rng)
        assert child is not None
        symbols = child.shorthand.split()
        families = ["a" if symbol in "af" else "b" for symbol in symbols]
        assert families in (sorted(families), sorted(families, reverse=True))
        assert 9 <= child.depth <= 21
        widths.add(child.width)
    assert widths == {64, 128}


def test_children_keep_what_the_space_does_not_speak_of() -> None:
    space, rng = SPACES["wide"], np.random.default_rng(0)
    parent = Architecture.from_shorthand(
        "a f a f", width=64, vocabulary=VOCABULARY, rope=None, tied_embeddings=False
    )
    assert space.contains(parent) is None
    for _ in range(50):
        mutated = space.mutate(parent, rng)
        assert mutated is not None
        assert mutated[0].rope is None
        assert not mutated[0].tied_embeddings


def test_samples_look_like_real_models() -> None:
    drawn = members(SPACES["wide"], 300)
    features = [SPACES["wide"].features(member) for member in drawn]
    assert np.mean([row["alternation"] for row in features]) > 0.7
    assert 0.4 < np.mean([row["mixer_fraction"] for row in features]) < 0.7
    assert {member.width for member in drawn} == set(WIDE.widths)
    assert {member.depth for member in drawn} == set(range(2, 25))
    assert {layer.operator for member in drawn for layer in member.layers} == set(registry.names())
    assert len({member.digest() for member in drawn}) > 290
    periodic = [member for member in drawn if member.depth >= 12 and _period(member.shorthand.split()) <= 6]
    assert len(periodic) > 30


def _period(symbols: list[str]) -> int:
    return next(
        n
        for n in range(1, len(symbols) + 1)
        if all(a == b for a, b in zip(symbols, symbols[n:], strict=False))
    )


@pytest.mark.parametrize("name", sorted(SPACES))
def test_features_are_finite_and_have_the_same_keys(name: str) -> None:
    space = SPACES[name]
    rows = [space.features(member) for member in (*members(space, 30), *space.seeds())]
    assert len({tuple(row) for row in rows}) == 1
    assert all(type(value) is float and isfinite(value) for row in rows for value in row.values())


def test_features_say_what_they_mean() -> None:
    space = SPACES["genes"]
    member = Architecture.from_shorthand(
        "a f a a", width=64, vocabulary=VOCABULARY, genes={"attention": {"head_dim": 16, "qk_norm": "full"}}
    )
    swiglu = registry.get("swiglu").shape.make(64, ratio=3.5)
    layers = tuple(
        layer.model_copy(update={"shape": swiglu}) if layer.operator == "swiglu" else layer
        for layer in member.layers
    )
    features = space.features(member.model_copy(update={"layers": layers}))
    assert features["attention.count"] == 3
    assert features["mixer_fraction"] == 0.75
    assert features["feedforward_ratio"] == features["swiglu.ratio"] == 3.5
    assert features["attention.position_mean"] == pytest.approx((0.5 + 2.5 + 3.5) / 3 / 4)
    assert features["alternation"] == pytest.approx(2 / 3)
    assert features["attention.group"] == 2
    assert 10 ** features["log10_params"] == pytest.approx(
        parameters(member.model_copy(update={"layers": layers}))
    )


def test_restricted_and_widened_genes_are_respected() -> None:
    space, rng = SPACES["genes"], np.random.default_rng(3)
    for member in members(space):
        mutated = space.mutate(member, rng)
        assert mutated is not None
        for layer in mutated[0].layers:
            if layer.operator == "attention":
                shape: Any = layer.shape
                assert (shape.head_dim, shape.window, shape.qk_norm) == (16, None, "full")
            else:
                assert layer.shape.genes(mutated[0].width)["ratio"] in (1.5, 3.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vocabulary": 7}, "vocabulary: expected 512, got 7"),
        ({"width": 40}, "width: expected one of 32, 64, got 40"),
        ({"layers": "a"}, "layers: expected 2 to 5, got 1"),
        ({"meta_tokens": 1}, "meta_tokens: expected one of 0, 4, got 1"),
        ({"normalized_head": True}, "normalized_head: expected False, got True"),
        ({"layers": "a m"}, "layers.1: expected one of attention, relu2, swiglu, got mamba2"),
        (
            {"layers": ["a", {"operator": "swiglu", "shape": {"hidden": 33}}]},
            "layers.1.shape: no genes of swiglu at width 64 give hidden=33",
        ),
        (
            {"layers": ["a", {"operator": "f", "norm": "layernorm"}]},
            "layers.1: expected a normalization of rmsnorm before, got layernorm before",
        ),
        ({"layers": "f r f"}, "layers: expected at least one mixer, got feed-forward networks alone"),
    ],
)
def test_contains_gives_the_reason(change: dict[str, Any], reason: str) -> None:
    data = {"width": 64, "vocabulary": VOCABULARY, "layers": "a f", **change}
    assert SPACES["small"].contains(Architecture.parse(data)) == reason


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "depths": ({"min_depth": 5, "max_depth": 3}, "expected min_depth to be at most max_depth, got 5 and 3"),
    "no depth": ({"min_depth": 0}, "min_depth: "),
    "no mixer": ({"operators": ["f", "r"]}, "operators: expected at least one mixer (attention"),
    "no operators": ({"operators": []}, "operators: "),
    "unknown operator": (
        {"operators": ["a", "zz"]},
        "operators: unknown operator 'zz': expected one of a (attention)",
    ),
    "operator twice": (
        {"operators": ["a", "attention"]},
        "operators: expected each once, got attention twice",
    ),
    "no widths": ({"widths": []}, "widths: "),
    "width twice": ({"widths": [64, 64]}, "widths: expected each once, got 64 twice"),
    "width too small": ({"widths": [4]}, "widths.0: "),
    "no meta tokens": ({"meta_tokens": []}, "meta_tokens: "),
    "unknown norm": ({"norms": [["groupnorm", "before"]]}, "norms.0.0: "),
    "norm twice": ({"norms": [["rmsnorm", "before"], ["rmsnorm", "before"]]}, "norms: expected each once"),
    "unknown key": ({"colour": 1}, "colour"),
    "genes of unknown operator": ({"genes": {"zz": {}}}, "genes: unknown operator 'zz'"),
    "genes of absent operator": (
        {"operators": ["a"], "genes": {"f": {}}},
        "genes: expected operators of the space (attention), got swiglu",
    ),
    "unknown gene": (
        {"genes": {"f": {"colour": [1]}}},
        "genes.swiglu: unknown gene 'colour': expected one of ratio",
    ),
    "no values": (
        {"genes": {"f": {"ratio": []}}},
        "genes.swiglu.ratio: expected at least one value, got none",
    ),
    "impossible value": (
        {"widths": [64, 96], "genes": {"a": {"head_dim": [32, 7]}}},
        "genes.attention.head_dim: no width of 64, 96 can have 7: ",
    ),
    "value of another kind": ({"genes": {"f": {"ratio": ["high"]}}}, "genes.swiglu.ratio: no width of "),
}


@pytest.mark.parametrize("case", BAD)
def test_contradictory_settings_are_one_line(case: str) -> None:
    data, expected = BAD[case]
    with pytest.raises(ValidationError) as caught:
        SpaceSettings.model_validate(data)
    message = one_line(caught.value)
    assert expected in message
    assert "\n" not in message
    assert "pydantic" not in message


def test_settings_survive_writing_and_reading() -> None:
    for given_settings in (SMALL, WIDE, FIXED_GENES, SpaceSettings()):
        again = SpaceSettings.model_validate(given_settings.model_dump(mode="json"))
        assert again == given_settings
        assert again.choices() == given_settings.choices()


def test_order_of_the_settings_does_not_matter() -> None:
    other = SpaceSettings(
        operators=("r", "f", "a"), widths=(64, 32), min_depth=2, max_depth=5, meta_tokens=(0, 4)
    )
    assert members(ArchitectureSpace(other, VOCABULARY), 10) == members(SPACES["small"], 10)


def test_no_member_meets_the_constraints() -> None:
    space = ArchitectureSpace(
        SMALL.model_copy(update={"max_tries": 20}), VOCABULARY, accepts=lambda found: False
    )
    with pytest.raises(ConfigError, match="none of 20 random architectures meets the constraints"):
        space.sample(np.random.default_rng(0))
    assert space.seeds() == ()
    member = SPACES["small"].sample(np.random.default_rng(0))
    assert space.mutate(member, np.random.default_rng(0)) is None
    assert space.crossover(member, member, np.random.default_rng(0)) is None
