"""Depth traded for width at about equal parameters, and sequences stretched to another depth."""

import numpy as np
import pytest

from operators import Architecture
from operators.cost import parameters
from search.config.space import SpaceSettings
from search.spaces import mutate
from search.spaces.free import ArchitectureSpace
from tests.helpers.small_spaces import SPACES, VOCABULARY, members


def test_trade_finds_equal_parameters_both_ways() -> None:
    """With no embedding to speak of and depth to spare, the trade comes much closer than its bound."""
    space = ArchitectureSpace(
        SpaceSettings(operators=("a", "f"), widths=(128, 192, 256), min_depth=2, max_depth=64), 2
    )
    rng, errors = np.random.default_rng(0), []
    start = Architecture.from_shorthand(
        "a f " * 8, width=192, vocabulary=2, genes={"attention": {"head_dim": 32}}
    )
    for trade in (mutate.trade_depth_for_width, mutate.trade_width_for_depth):
        child = trade(start, space.choices, rng)
        assert child is not None
        errors.append(abs(parameters(child) / parameters(start) - 1))
        assert child.shorthand.startswith("a f a f")
    assert max(errors) < 0.06


def test_trade_does_not_apply_where_parameters_would_differ() -> None:
    space = ArchitectureSpace(
        SpaceSettings(operators=("a", "f"), widths=(64, 512), min_depth=2, max_depth=4), VOCABULARY
    )
    parent = Architecture.from_shorthand("a f", width=512, vocabulary=VOCABULARY)
    assert mutate.trade_width_for_depth(parent, space.choices, np.random.default_rng(0)) is None
    assert mutate.trade_depth_for_width(parent, space.choices, np.random.default_rng(0)) is None


@pytest.mark.parametrize("name", ["wide", "genes"])
def test_trade_finds_the_depth_whose_parameters_are_nearest(name: str) -> None:
    space, rng, applied = SPACES[name], np.random.default_rng(3), 0
    low, high = space.choices.depths
    for parent in members(space):
        for trade in (mutate.trade_depth_for_width, mutate.trade_width_for_depth):
            child = trade(parent, space.choices, rng)
            if child is None:
                continue
            applied += 1
            layers = space.choices.resized(parent.layers, parent.width, child.width)
            assert layers is not None
            depths = (
                range(low, parent.depth) if child.width > parent.width else range(parent.depth + 1, high + 1)
            )
            laid = [(depth, mutate.stretched(layers, depth)) for depth in depths]
            off = {
                depth: abs(parameters(child.model_copy(update={"layers": other})) - parameters(parent))
                for depth, other in laid
                if any(map(mutate.is_mixer, other))
            }
            assert child.depth == min(off, key=lambda depth: off[depth])
            assert child.layers == dict(laid)[child.depth]
    assert applied > 20


@pytest.mark.parametrize("depth", range(1, 40))
def test_stretched_has_the_depth_and_keeps_order_and_shares(depth: int) -> None:
    layers = Architecture.from_shorthand("a f a f a f r r r r r r", width=64, vocabulary=2).layers
    out = mutate.stretched(layers, depth)
    assert len(out) == depth
    assert mutate.is_mixer(out[0])
    assert mutate.stretched(layers, len(layers)) == layers
