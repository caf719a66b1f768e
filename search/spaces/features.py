"""Architectures as numbers, for the surrogates that learn from them."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators import registry
from operators.architecture import Architecture
from operators.cost import surrounding_parameters
from search.config.choices import Choices, Part, norm_of

_OF_ALL = (
    "width",
    "depth",
    "meta_tokens",
    "log10_params",
    "log10_layer_params",
    "mixer_fraction",
    "alternation",
    "feedforward_ratio",
)


class Features:
    """Computes the features of architectures in one space.

    They are counts and positions of operators, sizes, and for each gene with a choice the mean of its values
    or, where values are not numbers, the share of each value.

    Each layer of the choices has a row of numbers. Features are sums of such rows, over many members at once,
    since a search asks for them all the time.

    choices: those of the space.
    """

    def __init__(self, choices: Choices) -> None:
        parts, operators = choices.all_parts, choices.operators
        mixers = [name for name in operators if registry.get(name).kind == "mixer"]
        norms = {part.number: " ".join(norm_of(part.layer)) for part in parts}
        means = _columns("norm", [" ".join(norm) for norm in choices.norms], norms)
        # The count that each mean is divided by; the last one is that of all layers.
        self._of = [len(operators)] * len(means)
        names = [*_OF_ALL, *means]
        for place, name in enumerate(operators):
            names.append(f"{name}.count")
            names += [f"{name}.position_{what}" for what in ("mean", "spread") if name in mixers]
            for column, (gene, options) in enumerate(choices.genes[name].items()):
                values = {part.number: part.values[column] for part in parts if part.layer.operator == name}
                more = _columns(f"{name}.{gene}", options, values)
                means |= more
                self._of += [place] * len(more)
                names += more
        computed = [*_OF_ALL, *(f"{name}.count" for name in operators)]
        computed += [f"{name}.position_{what}" for what in ("mean", "spread") for name in mixers]
        self._order = [[*computed, *means].index(name) for name in names]
        self.names = tuple(names)
        # Of each part: its parameters and ratio, then a 1 for its operator and for any layer, then its genes.
        # The last row stands for no layer, as members are of different depths.
        self._splits = (2, 3 + len(operators))
        self._table = np.zeros((len(parts) + 1, self._splits[1] + len(means)))
        for part in parts:
            counted = (2 + operators.index(part.layer.operator), self._splits[1] - 1)
            self._table[part.number, [0, 1, *counted]] = part.parameters, part.ratio, 1, 1
        for column, values in enumerate(means.values(), self._splits[1]):
            self._table[list(values), column] = list(values.values())
        self._mixers = [operators.index(name) for name in mixers]
        self._is_mixer = np.ascontiguousarray(self._table[:, [2 + place for place in self._mixers]])

    def __call__(
        self, members: Sequence[Architecture], parts: Sequence[Sequence[Part]]
    ) -> NDArray[np.float64]:
        """The features of members: finite numbers [n, names].

        parts: the facts about the layers of each, from `Choices.parts`.
        """
        depths = np.array([len(each) for each in parts])
        # Places first, [longest, n]: NumPy then adds long runs of numbers, layer by layer.
        rows = np.full((depths.max(), len(parts)), len(self._table) - 1)
        for number, each in enumerate(parts):
            rows[: len(each), number] = [part.number for part in each]
        sizes, counts, means = np.split(self._table[rows].sum(0), self._splits, 1)
        is_mixer, found = self._is_mixer[rows], counts[:, self._mixers]
        places = ((np.arange(len(rows))[:, None] + 0.5) / depths)[:, :, None]
        # An absent mixer counts as in the middle, the least surprising place.
        middle = np.where(found > 0, (is_mixer * places).sum(0) / np.maximum(found, 1), 0.5)
        spread = np.sqrt((is_mixer * (places - middle) ** 2).sum(0) / np.maximum(found, 1))
        means /= np.maximum(counts[:, self._of], 1)
        mixers: NDArray[np.bool_] = np.asarray(is_mixer.any(2))
        followed = np.arange(1, len(rows))[:, None] < depths
        of_all = [
            *_sizes_of(members, sizes[:, 0]).T,
            mixers.sum(0) / depths,
            ((mixers[1:] != mixers[:-1]) & followed).sum(0) / np.maximum(depths - 1, 1),
            sizes[:, 1] / np.maximum(depths - mixers.sum(0), 1),
        ]
        columns = np.hstack([np.column_stack(of_all), counts[:, :-1], middle, spread, means])
        return np.asarray(columns[:, self._order])


def _sizes_of(members: Sequence[Architecture], parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first columns of `_OF_ALL` [n, 5]. parameters: of all layers of each member [n]."""
    columns = []
    for member, of_layers in zip(members, parameters.tolist(), strict=True):
        width = member.width
        params = surrounding_parameters(member, width) + of_layers
        embeddings = member.vocabulary * width * (1 if member.tied_embeddings else 2)
        columns.append((width, member.depth, member.meta_tokens, log10(params), log10(params - embeddings)))
    return np.array(columns, float)


def _columns(name: str, options: Sequence[Any], values: Mapping[int, Any]) -> dict[str, dict[int, float]]:
    """The names of a gene's features, and for each {number of a part: its value}.

    values: number of a part -> the value of its gene.
    """
    if len(options) < 2:
        return {}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in options):
        return {name: dict(values)}
    return {
        f"{name}={option}": {number: float(value == option) for number, value in values.items()}
        for option in options
    }
