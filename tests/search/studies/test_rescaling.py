"""Rescaling finds the size of a design that takes a wanted time, in few measurements."""

import math
from collections.abc import Callable

import pytest

from operators import Architecture
from operators.cost import cost, parameters
from search.studies.rescaling import as_large, in_proportion, rescaled, sized

DESIGN = Architecture.load("nemotron-flash-1b").model_copy(update={"vocabulary": 300, "meta_tokens": 0})


def by_layers(member: Architecture) -> float:
    """A small device: a layer takes a time of its own, and its width matters less."""
    return member.depth * (0.1 + member.width / 4000)


def by_bytes(member: Architecture) -> float:
    """A large model on a GPU: a step takes the time of reading the weights."""
    return 0.02 + parameters(member) / 1e8


def counted(time: Callable[[Architecture], float]) -> tuple[Callable[[Architecture], float], list[str]]:
    tried = list[str]()

    def counting(member: Architecture) -> float:
        tried.append(f"{member.width}x{member.depth}")
        return time(member)

    return counting, tried


@pytest.mark.parametrize("time", [by_layers, by_bytes])
@pytest.mark.parametrize("wanted", [0.35, 0.8, 1.9, 5.0])
@pytest.mark.parametrize("first", [16, 512, 4096])
def test_a_size_of_the_wanted_time_is_found(
    time: Callable[[Architecture], float], wanted: float, first: int
) -> None:
    counting, tried = counted(time)
    member, found = rescaled(DESIGN, wanted, counting, first=first)
    assert found == time(member) == pytest.approx(wanted, rel=0.06)
    assert len(tried) == len(set(tried)) <= 12
    assert member.width % 16 == 0
    assert {layer.operator for layer in member.layers} <= {layer.operator for layer in DESIGN.layers}


def test_the_proportion_stays_where_that_is_near_enough() -> None:
    member, _ = rescaled(DESIGN, by_bytes(in_proportion(DESIGN, 1024)), by_bytes, first=512)
    assert (member.width, member.depth) == (1024, 12)
    assert member.shorthand == "d f m f a f m f d f m f"


def test_half_of_the_design_is_half_as_wide_and_deep() -> None:
    half = sized(DESIGN, 1024, 12)
    assert half.layers[0].shape.genes(1024) == DESIGN.layers[0].shape.genes(2048)
    assert half.name == "nemotron-flash-1b rescaled"
    assert sized(DESIGN, 2048, 26).shorthand == f"{DESIGN.shorthand} d f"
    assert in_proportion(DESIGN, 2048).layers == DESIGN.layers
    assert in_proportion(DESIGN, 16).depth == 2  # at least a mixer and its feed-forward network


def test_sizes_that_cannot_be_measured_are_too_large() -> None:
    def time(member: Architecture) -> float:
        return by_layers(member) if member.width <= 600 else math.inf

    member, found = rescaled(DESIGN, 1.9, time, first=4096)
    assert found == pytest.approx(1.9, rel=0.25)
    assert member.width <= 600


def test_where_no_size_is_fast_enough_the_nearest_is_told() -> None:
    member, found = rescaled(DESIGN, 0.01, by_layers, first=256)
    assert (member.width, member.depth) == (16, 2)
    assert found > 0.01 * 1.5


def test_the_first_try_moves_as_many_bytes() -> None:
    def size(member: Architecture) -> int:
        return cost(member, batch=1, context=128).decode_bytes

    wanted = size(in_proportion(DESIGN, 640))
    assert as_large(DESIGN, wanted, size) == 640
    assert as_large(DESIGN, wanted + 1, size) == 656
    assert as_large(DESIGN, 1, size) == 16
