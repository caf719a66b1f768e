"""Where a search begins: the corners of a space, published designs as near as the space has them, and each mixer alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from operators import registry
from operators.architecture import Architecture, Layer
from operators.base import shipped
from search.config.choices import Choices, norm_of, normalized
from search.spaces.mutate import stretched

DESIGNS = ("nemotron-flash-1b", "nemotron-flash-3b", "llama-3.2-1b", "qwen3-0.6b", "mamba2-1.3b")
"""The shipped architectures that are tried, one of each kind."""


class Build(Protocol):
    def __call__(self, width: int, layers: Sequence[Layer], meta_tokens: int, name: str) -> Architecture: ...


def first_members(
    choices: Choices, build: Build, legal: Callable[[Architecture], bool]
) -> tuple[Architecture, ...]:
    """Members worth trying first, each named after what it is; of each kind the first that is legal, equal ones once.

    Corners first: they bound what a search can find. Then designs, then single mixers of the middle width and depth, or the next smaller.
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
    found = [member for some in tries if (member := next(filter(legal, some), None)) is not None]
    return tuple({member.digest(): member for member in reversed(found)}.values())[::-1]


def shallow_members(
    choices: Choices, build: Build, legal: Callable[[Architecture], bool]
) -> Iterator[Architecture]:
    """Each mixer alone in its smallest shape, as shallow and then as narrow as is legal: whatever is fast on a device, one of them is."""
    low, high = choices.depths
    for name in _mixers(choices):
        found = next(filter(legal, _alone(name, choices, build, range(low, high + 1), choices.widths)), None)
        if found is not None:
            yield found


def _mixers(choices: Choices) -> list[str]:
    return [name for name in choices.operators if registry.get(name).kind == "mixer"]


def designs_of(operators: Iterable[str]) -> list[Architecture]:
    """The shipped designs that are made of these operators alone."""
    files = [shipped.find(Path(name), "architecture") for name in DESIGNS]
    known, designs = set(operators), [Architecture.load(file) for file in files if file is not None]
    return [design for design in designs if {layer.operator for layer in design.layers} <= known]


def rescaled_to(design: Architecture, width: int, choices: Choices, build: Build) -> Architecture | None:
    """A design at that width and, as near as the space has it, the depth in proportion; None where an operator cannot be at that width."""
    low, high = choices.depths
    return _rescaled_to(
        design, min(max(round(width * design.depth / design.width), low), high), width, choices, build
    )


def _corner(
    choices: Choices, build: Build, name: str, width: int, depths: Iterable[int], size: Callable[..., Layer]
) -> Iterator[Architecture]:
    """Every mixer in turn at that width, at the first of the depths that is legal."""
    mixers = choices.available(width, "mixer")
    for depth in depths:
        yield build(width, _by_turns(choices, width, mixers, depth, size), choices.meta_tokens[0], name)


def _alone(
    name: str, choices: Choices, build: Build, depths: Iterable[int], widths: Sequence[int]
) -> Iterator[Architecture]:
    """One mixer with feed-forward networks, at each depth at each of the widths where it can be."""
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
    """Every mixer in turn, each before a feed-forward network; `size` (min or max) chooses among shapes by parameters."""

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
    """A design at the depth and the proportion of width to depth that the space has nearest to its own, then smaller."""
    low, high = choices.depths
    for depth in range(min(max(design.depth, low), high), low - 1, -1):
        for width in sorted(
            choices.widths, key=lambda width: abs(width / depth - design.width / design.depth)
        ):
            if (found := _rescaled_to(design, depth, width, choices, build)) is not None:
                yield found


def _rescaled_to(
    design: Architecture, depth: int, width: int, choices: Choices, build: Build
) -> Architecture | None:
    meta_tokens = min(choices.meta_tokens, key=lambda count: abs(count - design.meta_tokens))
    layers = [_nearest(layer, design.width, width, choices) for layer in stretched(design.layers, depth)]
    return (
        None
        if None in layers
        else build(width, [layer for layer in layers if layer], meta_tokens, f"{design.name} rescaled")
    )


def _nearest(layer: Layer, width_from: int, width_to: int, choices: Choices) -> Layer | None:
    """Of the layers that its operator can be at `width_to` the one that shares most genes with it; None where there is none."""
    table, wanted = choices.layers[layer.operator, width_to], layer.shape.genes(width_from)
    if not table:
        return None
    names = choices.genes[layer.operator]
    values = max(
        table,
        key=lambda values: sum(wanted.get(gene) == value for gene, value in zip(names, values, strict=True)),
    )
    return normalized(table[values], norm_of(layer) if norm_of(layer) in choices.norms else choices.norms[0])
