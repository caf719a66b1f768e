"""Whether a frontier lies at the edge of its space, so that a larger space may hold a better one."""

from collections.abc import Sequence

from operators import Architecture
from search.config.space import SpaceSettings

_FEWEST = 3
"""Members at an edge below which there is no message: one or two lie there by chance."""


def at_edges(members: Sequence[Architecture], settings: SpaceSettings) -> list[str]:
    """A line for each edge of width or depth of the space where at least half of a frontier's members lie."""
    widths, depths = [member.width for member in members], [member.depth for member in members]
    edges = (
        ("greatest width", "wider", widths, max(settings.widths), min(settings.widths)),
        ("smallest width", "narrower", widths, min(settings.widths), max(settings.widths)),
        ("greatest depth", "deeper", depths, settings.max_depth, settings.min_depth),
        ("smallest depth", "shallower", depths, settings.min_depth, settings.max_depth),
    )
    return [
        f"{values.count(edge)} of {len(values)} on the frontier have the space's {name}, {edge}: "
        f"{better} ones may be better"
        for name, better, values, edge, opposite in edges
        if edge != opposite and values.count(edge) >= max(_FEWEST, len(values) / 2)
    ]
