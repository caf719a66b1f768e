"""Frontiers at the edge of their space: what is said, and when nothing is."""

import pytest

from operators import Architecture
from search.config.space import SpaceSettings
from search.spaces.edges import at_edges

SPACE = SpaceSettings(operators=("attention", "swiglu"), widths=(64, 128, 256), min_depth=2, max_depth=6)


def members(*shapes: tuple[int, int]) -> list[Architecture]:
    return [
        Architecture.from_shorthand(
            " ".join("af"[place % 2] for place in range(depth)), width=w, vocabulary=512
        )
        for w, depth in shapes
    ]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (
            [(256, 3), (256, 4), (256, 5), (128, 2)],
            ["3 of 4 on the frontier have the space's greatest width, 256: wider"],
        ),
        (
            [(64, 6), (64, 3), (64, 4), (128, 6), (256, 6), (128, 4)],
            ["smallest width, 64: narrower", "greatest depth, 6: deeper"],
        ),
        (
            [(128, 2), (64, 2), (256, 2)],
            ["3 of 3 on the frontier have the space's smallest depth, 2: shallower ones may be better"],
        ),
        ([(256, 2), (256, 2)], []),  # two say nothing
        ([(256, 4), (256, 4), (256, 4), (64, 3), (128, 3), (128, 5), (64, 5)], []),  # fewer than half
    ],
)
def test_where_half_of_a_frontier_is_at_an_edge_it_is_said(
    shapes: list[tuple[int, int]], expected: list[str]
) -> None:
    found = at_edges(members(*shapes), SPACE)
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))


def test_a_space_of_one_width_and_depth_has_no_edge() -> None:
    alone = SPACE.model_copy(update={"widths": (128,), "min_depth": 4, "max_depth": 4})
    assert at_edges(members((128, 4), (128, 4), (128, 4)), alone) == []
