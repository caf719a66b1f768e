"""The first proposals of a search: corners of its space, members near published designs, each mixer alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from operators import registry
from operators.architecture import Architecture, Layer
from operators.base import shipped
from search.config.choices import Choices, norm_of, normalized
from search.spaces.mutate import stretched

DESIGNS = ("nemotron-flash-1b", "nemotron-flash-3b", "llama-3.2-1b", "qwen3-0.6b", "mamba2-1.3b")
"""The shipped architectures to begin with: hybrids of two sizes, two transformers, and a pure Mamba2."""

RESCALED = " rescaled"
"""Behind a design's name: the member of a space that is nearest to it."""


class Build(Protocol):
    """Makes an architecture of a space from its width, layers, number of meta tokens and name."""

    def __call__(self, width: int, layers: Sequence[Layer], meta_tokens: int, name: str) -> Architecture: ...


def first_members(
    choices: Choices, build: Build, legal: Callable[[Architecture], bool]
) -> tuple[Architecture, ...]:
    """Members worth trying first, each with a name. Of each kind the first legal one; equal ones occur once.

    Corners come first, as they bound what a search can find. Then come published designs, then single mixers
    at the middle width and depth, or the next smaller ones.

    build: makes an architecture of the space.
    legal: whether an architecture is a member and meets the run's constraints.
    """
    low, high = choices.depths
    narrow, wide = choices.widths[0], choices.widths[-1]
    up, down = range(low, high + 1), range(high, low - 1, -1)
    tries = [
        _corner(choices, build, "smallest", narrow, up, min),
        _corner(choices, build, "deepest", narrow, down, max),
        _corner(choices, build, "widest", wide, up, min),
        _corner(choices, build, "largest", wide, down, max),
    ]
    tries += [_rescaled(design, choices, build) for design in designs_of(choices.operators)]
    middle_down, narrower = (
        range((low + high) // 2, low - 1, -1),
        choices.widths[: (len(choices.widths) + 1) // 2][::-1],
    )
    tries += [_alone(name, choices, build, middle_down, narrower) for name in _mixers(choices)]
    members = [member for some in tries if (member := next(filter(legal, some), None)) is not None]
    return tuple({member.digest(): member for member in reversed(members)}.values())[::-1]


def shallow_members(
    choices: Choices, build: Build, legal: Callable[[Architecture], bool]
) -> Iterator[Architecture]:
    """Each mixer alone in its smallest shape, as shallow and then as narrow as is legal.

    Whichever operator a device is fast at, one of these members is fast on it.
    """
    low, high = choices.depths
    for name in _mixers(choices):
        smallest = next(
            filter(legal, _alone(name, choices, build, range(low, high + 1), choices.widths)), None
        )
        if smallest is not None:
            yield smallest


def _mixers(choices: Choices) -> list[str]:
    return [name for name in choices.operators if registry.get(name).kind == "mixer"]


def designs_of(operators: Iterable[str]) -> list[Architecture]:
    """The shipped designs that consist of these operators only."""
    files = [shipped.find(Path(name), "architecture") for name in DESIGNS]
    known, designs = set(operators), [Architecture.load(file) for file in files if file is not None]
    return [design for design in designs if {layer.operator for layer in design.layers} <= known]


def design_in(member: Architecture) -> str | None:
    """The name of the published design that a member is the nearest one to; None for any other."""
    return member.name.removesuffix(RESCALED) if member.name.endswith(RESCALED) else None


def rescaled_to(design: Architecture, width: int, choices: Choices, build: Build) -> Architecture | None:
    """A design at this width and the nearest depth in proportion that the space allows.

    None if one of its operators cannot be built at this width.
    """
    low, high = choices.depths
    return _rescaled_to(
        design, min(max(round(width * design.depth / design.width), low), high), width, choices, build
    )


def _corner(
    choices: Choices, build: Build, name: str, width: int, depths: Iterable[int], size: Callable[..., Layer]
) -> Iterator[Architecture]:
    """All mixers in turns at this width, at each of the depths.

    size: min or max, to choose each operator's smallest or largest shape.
    """
    mixers = choices.available(width, "mixer")
    for depth in depths:
        yield build(width, _by_turns(choices, width, mixers, depth, size), choices.meta_tokens[0], name)


def _alone(
    name: str, choices: Choices, build: Build, depths: Iterable[int], widths: Sequence[int]
) -> Iterator[Architecture]:
    """One mixer with feed-forward networks, at each depth and each of the widths where it can be built."""
    for depth in depths:
        for width in widths:
            if choices.at(name, width):
                yield build(
                    width,
                    _by_turns(choices, width, (name,), depth, min),
                    choices.meta_tokens[0],
                    f"{name} alone",
                )


def _by_turns(
    choices: Choices, width: int, mixers: Sequence[str], depth: int, size: Callable[..., Layer]
) -> tuple[Layer, ...]:
    """All mixers in turns, each before a feed-forward network.

    size: min or max; chooses each operator's shape by its parameters.
    """

    def sized(name: str) -> Layer:
        layer = size(
            choices.at(name, width), key=lambda layer: registry.get(name).parameters(width, layer.shape)
        )
        return normalized(layer, choices.norms[0])

    feedforwards = choices.available(width, "feedforward")
    layers: list[Layer] = []
    for number in range(depth):
        layers.append(sized(mixers[number % len(mixers)]))
        layers += [sized(feedforwards[number % len(feedforwards)])] if feedforwards else []
    return tuple(layers[:depth])


def _rescaled(design: Architecture, choices: Choices, build: Build) -> Iterator[Architecture]:
    """A design at the nearest depth and proportion of width to depth in the space, then smaller ones."""
    low, high = choices.depths
    for depth in range(min(max(design.depth, low), high), low - 1, -1):
        for width in sorted(
            choices.widths, key=lambda width: abs(width / depth - design.width / design.depth)
        ):
            if (rescaled := _rescaled_to(design, depth, width, choices, build)) is not None:
                yield rescaled


def _rescaled_to(
    design: Architecture, depth: int, width: int, choices: Choices, build: Build
) -> Architecture | None:
    meta_tokens = min(choices.meta_tokens, key=lambda count: abs(count - design.meta_tokens))
    layers = [_nearest(layer, design.width, width, choices) for layer in stretched(design.layers, depth)]
    return (
        None
        if None in layers
        else build(width, [layer for layer in layers if layer], meta_tokens, f"{design.name}{RESCALED}")
    )


def _nearest(layer: Layer, width_from: int, width_to: int, choices: Choices) -> Layer | None:
    """The operator's layer at `width_to` that shares most genes with this layer; None if there is none."""
    table, wanted = choices.layers[layer.operator, width_to], layer.shape.genes(width_from)
    if not table:
        return None
    names = choices.genes[layer.operator]
    values = max(
        table,
        key=lambda values: sum(wanted.get(gene) == value for gene, value in zip(names, values, strict=True)),
    )
    return normalized(table[values], norm_of(layer) if norm_of(layer) in choices.norms else choices.norms[0])
