"""Features against their definitions, computed layer by layer."""

from itertools import pairwise
from math import log10, sqrt
from typing import Any

import numpy as np
import pytest

from operators import Architecture, registry
from operators.cost import parameters
from search.config.choices import norm_of
from search.spaces.contract import feature_rows
from search.spaces.free import ArchitectureSpace
from tests.helpers.small_spaces import SPACES, members


def plain(space: ArchitectureSpace, member: Architecture) -> dict[str, float]:
    """The features by their definitions."""
    layers, depth, choices = member.layers, member.depth, space.choices
    mixers = [registry.get(layer.operator).kind == "mixer" for layer in layers]
    genes = [layer.shape.genes(member.width) for layer in layers]
    ratios = [own.get("ratio", 0) for own, mixer in zip(genes, mixers, strict=True) if not mixer]
    embeddings = member.vocabulary * member.width
    found = {
        "width": member.width,
        "depth": depth,
        "meta_tokens": member.meta_tokens,
        "log10_params": log10(parameters(member)),
        "log10_layer_params": log10(parameters(member) - embeddings),
        "mixer_fraction": np.mean(mixers),
        "alternation": sum(a != b for a, b in pairwise(mixers)) / max(1, depth - 1),
        "feedforward_ratio": np.mean(ratios) if ratios else 0.0,
    }
    found |= means("norm", [" ".join(norm) for norm in choices.norms], [" ".join(norm_of(e)) for e in layers])
    for name in choices.operators:
        own = [number for number, layer in enumerate(layers) if layer.operator == name]
        found[f"{name}.count"] = len(own)
        if registry.get(name).kind == "mixer":
            places = [(number + 0.5) / depth for number in own] or [0.5]
            middle = sum(places) / len(places)
            found[f"{name}.position_mean"] = middle
            found[f"{name}.position_spread"] = sqrt(sum((e - middle) ** 2 for e in places) / len(places))
        values = [choices.values(layers[number], member.width) or () for number in own]
        for column, (gene, options) in enumerate(choices.genes[name].items()):
            found |= means(f"{name}.{gene}", options, [each[column] for each in values])
    return found


def means(name: str, options: Any, chosen: list[Any]) -> dict[str, float]:
    """The mean of numbers or the shares of other values, 0 without any; nothing where there is no choice."""
    if len(options) < 2:
        return {}
    if all(type(value) in (int, float) for value in options):
        return {name: sum(chosen) / max(1, len(chosen))}
    return {f"{name}={value}": chosen.count(value) / max(1, len(chosen)) for value in options}


@pytest.mark.parametrize("name", sorted(SPACES))
def test_features_are_what_their_definitions_say(name: str) -> None:
    space = SPACES[name]
    drawn = list(members(space))
    rows = feature_rows(space, drawn)
    for member, row in zip(drawn, rows, strict=True):
        expected = plain(space, member)
        assert list(space.features(member)) == list(expected)
        assert row == pytest.approx(list(expected.values()), rel=1e-12, abs=1e-12)


def test_a_member_has_the_same_features_alone_and_among_others() -> None:
    space = SPACES["wide"]
    drawn = list(members(space))
    alone = np.array([list(space.features(member).values()) for member in drawn])
    assert np.array_equal(feature_rows(space, drawn), alone)
