"""Small changes of an architecture: pure functions that return a new one, or None where they do not apply.

A mutation takes a parent, the choices of the space that the parent is a member of, and a random generator.
Its result keeps to the choices, to the bounds on depth and to at least one mixer. It may break a run's
constraints: the space checks these.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import accumulate, chain, groupby, pairwise
from typing import TypeVar

from numpy.random import Generator

from operators import registry
from operators.architecture import Architecture, Layer
from operators.cost import layer_sizes, parameters, surrounding_parameters
from search.config.choices import Choices, Layers, OpenGenes, norm_of, normalized

T = TypeVar("T")
TRADE_TOLERANCE = 0.2
"""Largest relative difference in parameters that counts as about equal when depth is traded for width."""

Mutation = Callable[[Architecture, Choices, Generator], Architecture | None]


def pick(options: Sequence[T], rng: Generator) -> T:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def is_mixer(layer: Layer) -> bool:
    return registry.get(layer.operator).kind == "mixer"


def alike(child: Architecture, parent: Architecture) -> bool:
    """Whether the two are equal in everything that a mutation may change."""
    return (child.width, child.meta_tokens, child.layers) == (parent.width, parent.meta_tokens, parent.layers)


def blocks(layers: Layers) -> list[Layers]:
    """The sequence cut before each mixer: a piece is a mixer with the feed-forward networks behind it."""
    return [layers[start:end] for start, end in pairwise(_starts(layers))]


def _starts(layers: Layers) -> list[int]:
    """The places where the pieces of `blocks` begin, and the number of layers."""
    return [0, *[number for number, layer in enumerate(layers) if number and is_mixer(layer)], len(layers)]


def replace_operator(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Puts another operator in one place; three times out of four one of the same kind."""
    where = int(rng.integers(parent.depth))
    old = parent.layers[where]
    kind = registry.get(old.operator).kind
    others = [name for name in choices.available(parent.width) if name != old.operator]
    alike = [name for name in others if registry.get(name).kind == kind]
    names = alike if alike and (rng.random() < 0.75 or _is_last_mixer(parent.layers, where)) else others
    if not names:
        return None
    return _with(
        parent,
        (
            *parent.layers[:where],
            _layer_like(parent, pick(names, rng), where, choices, rng),
            *parent.layers[where + 1 :],
        ),
    )


def insert_operator(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Adds one layer; a mixer and a feed-forward network are equally likely."""
    if parent.depth >= choices.depths[1]:
        return None
    kinds = [names for kind in ("mixer", "feedforward") if (names := choices.available(parent.width, kind))]
    where = int(rng.integers(parent.depth + 1))
    layer = _layer_like(parent, pick(pick(kinds, rng), rng), min(where, parent.depth - 1), choices, rng)
    return _with(parent, (*parent.layers[:where], layer, *parent.layers[where:]))


def delete_operator(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Removes one layer."""
    if parent.depth <= choices.depths[0]:
        return None
    where = int(rng.integers(parent.depth))
    return _with(parent, parent.layers[:where] + parent.layers[where + 1 :])


def swap_operators(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Exchanges two different layers."""
    first, parts = int(rng.integers(parent.depth)), choices.parts(parent.layers, parent.width) or []
    # Equal layers have one part: to compare parts takes a tenth of the time.
    partners = [number for number, part in enumerate(parts) if part is not parts[first]]
    if not partners:
        return None
    second, layers = pick(partners, rng), list(parent.layers)
    layers[first], layers[second] = layers[second], layers[first]
    return _with(parent, tuple(layers))


def repeat_block(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Repeats two or more neighbouring layers once, right behind them."""
    longest = min(choices.depths[1] - parent.depth, parent.depth)
    if longest < 2:
        return None
    length = int(rng.integers(2, longest + 1))
    end = int(rng.integers(length, parent.depth + 1))
    return _with(parent, parent.layers[:end] + parent.layers[end - length :])


def cut_block(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Removes two or more neighbouring layers."""
    longest = parent.depth - choices.depths[0]
    if longest < 2:
        return None
    length = int(rng.integers(2, longest + 1))
    start = int(rng.integers(parent.depth - length + 1))
    return _with(parent, parent.layers[:start] + parent.layers[start + length :])


def trade_depth_for_width(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Makes it wider and shallower at about equal parameters."""
    return _trade(parent, choices, rng, [width for width in choices.widths if width > parent.width])


def trade_width_for_depth(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Makes it narrower and deeper at about equal parameters."""
    return _trade(parent, choices, rng, [width for width in choices.widths if width < parent.width])


def change_width(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Takes the next width up or down with the same layers."""
    here = choices.widths.index(parent.width)
    width = pick(
        [number for number in (here - 1, here + 1) if 0 <= number < len(choices.widths)] or [here], rng
    )
    layers = choices.resized(parent.layers, parent.width, choices.widths[width])
    return None if width == here or layers is None else _with(parent, layers, width=choices.widths[width])


def change_ratio(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Changes the ratio of a feed-forward network's inner width to the width."""
    return _change_gene(parent, choices, rng, choices.ratios)


def change_shape(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Changes one gene of an operator, other than the feed-forward ratio."""
    return _change_gene(parent, choices, rng, choices.shapes)


def change_meta_tokens(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Changes the number of meta tokens."""
    others = [count for count in choices.meta_tokens if count != parent.meta_tokens]
    return parent.model_copy(update={"name": "", "meta_tokens": pick(others, rng)}) if others else None


def change_normalization(parent: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Changes the normalization of one layer, or of all layers up to it or from it on.

    The latter two make a split by depth, as some published models have it, one step.
    """
    norm, where = pick(choices.norms, rng), int(rng.integers(parent.depth))
    start, end = pick(((where, where + 1), (0, where + 1), (where, parent.depth)), rng)
    if len(choices.norms) == 1:
        return None
    layers = tuple(
        normalized(layer, norm) if start <= number < end else layer
        for number, layer in enumerate(parent.layers)
    )
    return _with(parent, layers) if layers != parent.layers else None


MUTATIONS: Mapping[str, Mutation] = {
    "replace": replace_operator,
    "insert": insert_operator,
    "delete": delete_operator,
    "swap": swap_operators,
    "repeat_block": repeat_block,
    "cut_block": cut_block,
    "deeper": trade_width_for_depth,
    "wider": trade_depth_for_width,
    "width": change_width,
    "ratio": change_ratio,
    "shape": change_shape,
    "meta_tokens": change_meta_tokens,
    "normalization": change_normalization,
}


def crossover(a: Architecture, b: Architecture, choices: Choices, rng: Generator) -> Architecture | None:
    """Joins the beginning of one parent and the end of the other, at the width of either.

    Both are cut at the same relative depth.
    """
    if rng.random() < 0.5:
        a, b = b, a
    cut, width = rng.random(), pick((a.width, b.width), rng)
    head, tail = a.layers[: round(cut * a.depth)], b.layers[round(cut * b.depth) :]
    resized = [choices.resized(part, parent.width, width) for part, parent in ((head, a), (tail, b))]
    if resized[0] is None or resized[1] is None:
        return None
    layers = resized[0] + resized[1]
    if not choices.depths[0] <= len(layers) <= choices.depths[1]:
        return None
    child = _with(a, layers, width=width)
    return child and child.model_copy(update={"meta_tokens": pick((a.meta_tokens, b.meta_tokens), rng)})


def _with(parent: Architecture, layers: Layers, *, width: int | None = None) -> Architecture | None:
    """The parent with other layers; None without a mixer among them.

    A child loses the name, as it is another model than the one that was named.
    """
    if not any(map(is_mixer, layers)):
        return None
    return parent.model_copy(update={"name": "", "layers": layers, "width": width or parent.width})


def _is_last_mixer(layers: Layers, where: int) -> bool:
    return is_mixer(layers[where]) and sum(map(is_mixer, layers)) == 1


def _layer_like(parent: Architecture, name: str, where: int, choices: Choices, rng: Generator) -> Layer:
    """A layer of this operator, normalized as the parent's layer at `where`.

    Three times out of four it has a shape that the parent has elsewhere, since real models repeat shapes.
    """
    present = [layer for layer in parent.layers if layer.operator == name]
    layer = (
        pick(present, rng) if present and rng.random() < 0.75 else pick(choices.at(name, parent.width), rng)
    )
    return normalized(layer, norm_of(parent.layers[where]))


def _change_gene(
    parent: Architecture, choices: Choices, rng: Generator, allowed: OpenGenes
) -> Architecture | None:
    """Changes one gene of one operator: half of the time in a single layer, otherwise in all of its layers.

    allowed: the genes that may change.
    """
    names = [layer.operator for layer in parent.layers]
    genes = [(name, *gene) for name in sorted(set(names)) for gene in allowed[name]]
    parts = choices.parts(parent.layers, parent.width)
    if parts is None:
        return None
    for order in rng.permutation(len(genes)):
        name, column, options = genes[order]
        value = pick(options, rng)
        places = [number for number, own in enumerate(names) if own == name]
        places = places if rng.random() < 0.5 else [pick(places, rng)]
        table, changed, layers = choices.layers[name, parent.width], dict[int, Layer](), list(parent.layers)
        for number in places:
            part = parts[number]
            if part.number not in changed:
                other = table.get((*part.values[:column], value, *part.values[column + 1 :]))
                changed[part.number] = part.layer if other is None else normalized(other, norm_of(part.layer))
            layers[number] = changed[part.number]
        if tuple(layers) != parent.layers:
            return _with(parent, tuple(layers))
    return None


def _trade(
    parent: Architecture, choices: Choices, rng: Generator, widths: Sequence[int]
) -> Architecture | None:
    """The parent at one of the widths, at the depth that brings its parameters nearest to the parent's.

    None if no depth but the parent's is within TRADE_TOLERANCE.
    """
    wanted, starts = parameters(parent), _starts(parent.layers)
    tolerance = TRADE_TOLERANCE * wanted
    for order in rng.permutation(len(widths)):
        width = widths[order]
        layers = choices.resized(parent.layers, parent.width, width)
        if layers is None:
            continue
        low, high = choices.depths
        depths = range(parent.depth + 1, high + 1) if width < parent.width else range(low, parent.depth)
        sizes, missing = layer_sizes(layers, width), wanted - surrounding_parameters(parent, width)
        sized = [tuple(sizes[start:end]) for start, end in pairwise(starts)]
        off = [
            (abs(size - missing), depth)
            for size, depth in zip(_laid_sums(sized, depths, parent.depth), depths, strict=True)
        ]
        for _, depth in sorted(pair for pair in off if pair[0] <= tolerance):
            child = _with(parent, _laid(blocks(layers), depth, parent.depth), width=width)
            if child is not None:
                return child
    return None


def stretched(layers: Layers, depth: int) -> Layers:
    """The sequence at another depth: its blocks are repeated or left out evenly.

    So the order and the shares of operators stay. Where whole blocks do not add up to `depth`, the last one
    is repeated or cut short.
    """
    return _laid(blocks(layers), depth, len(layers))


def _laid(parts: Sequence[tuple[T, ...]], depth: int, before: int) -> tuple[T, ...]:
    """The work of `stretched`, on layers or on a number for each layer.

    parts: the blocks.
    depth: wanted number of layers.
    before: number of layers of all blocks.
    """
    count = _count(len(parts), before, depth)
    out = tuple(chain.from_iterable([parts[number] for number in _spread(len(parts), count)]))
    while len(out) < depth:
        out += parts[-1]
    return out[:depth]


def _laid_sums(parts: Sequence[tuple[int, ...]], depths: Sequence[int], before: int) -> list[int]:
    """The sums of `_laid` at each depth. Depths that are laid of the same blocks share one running sum."""
    sums = list[int]()
    for count, alike in _counts(len(parts), depths, before):
        running = list(
            accumulate(chain.from_iterable([parts[number] for number in _spread(len(parts), count)]))
        )
        while len(running) < alike[-1]:
            running += [running[-1] + more for more in accumulate(parts[-1])]
        sums += [running[depth - 1] for depth in alike]
    return sums


@lru_cache(maxsize=1024)
def _counts(blocks: int, depths: range, before: int) -> list[tuple[int, list[int]]]:
    """Numbers of blocks that are laid, each with the depths that it is laid for."""
    return [(count, list(alike)) for count, alike in groupby(depths, partial(_count, blocks, before))]


def _count(blocks: int, before: int, depth: int) -> int:
    """The number of blocks whose number of layers is about `depth`."""
    return max(1, round(blocks * depth / before))


@lru_cache(maxsize=4096)
def _spread(blocks: int, count: int) -> tuple[int, ...]:
    """The numbers of `count` of the blocks, repeated or left out evenly."""
    return tuple([number * blocks // count for number in range(count)])
