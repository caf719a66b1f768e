"""Architectures as numbers, for the surrogates that learn from them."""

from collections.abc import Mapping, Sequence
from itertools import chain, product
from math import log10, sqrt
from operator import ne
from typing import Any

from operators import registry
from operators.architecture import Architecture
from operators.cost import surrounding_parameters
from search.config.choices import Choices, Part, norm_of


class Features:
    """Computes the features of architectures in one space.

    They are counts and positions of operators, sizes, and for each gene with a choice the mean of its values
    or, where values are not numbers, the share of each value.

    choices: those of the space.
    """

    def __init__(self, choices: Choices) -> None:
        self._norms = _Means({"norm": [" ".join(norm) for norm in choices.norms]})
        self._operators = {name: _Operator(name, choices.genes[name]) for name in choices.operators}
        self._absent = {name: operator([], []) for name, operator in self._operators.items()}

    def __call__(self, member: Architecture, parts: Sequence[Part]) -> dict[str, float]:
        """The features of a member: finite numbers, with the same keys for every member.

        parts: the facts about its layers, from `Choices.parts`.
        """
        depth, width = member.depth, member.width
        mixers = [part.mixer for part in parts]
        ratios = [part.ratio for part in parts if not part.mixer]
        params = surrounding_parameters(member, width) + sum([part.parameters for part in parts])
        embeddings = member.vocabulary * width * (1 if member.tied_embeddings else 2)
        features = {
            "width": float(width),
            "depth": float(depth),
            "meta_tokens": float(member.meta_tokens),
            "log10_params": log10(params),
            "log10_layer_params": log10(params - embeddings),
            "mixer_fraction": sum(mixers) / depth,
            "alternation": sum(map(ne, mixers, mixers[1:])) / max(1, depth - 1),
            "feedforward_ratio": sum(ratios) / max(1, len(ratios)),
        }
        if self._norms.names:
            features |= self._norms([(" ".join(norm_of(layer)),) for layer in member.layers])
        numbers: dict[str, list[int]] = {}
        for number, layer in enumerate(member.layers):
            numbers.setdefault(layer.operator, []).append(number)
        for name, operator in self._operators.items():
            if name in numbers:
                places = [(number + 0.5) / depth for number in numbers[name]]
                features |= operator(places, [parts[number].values for number in numbers[name]])
            else:
                features |= self._absent[name]
        return features


class _Operator:
    """The features of one operator's layers."""

    def __init__(self, name: str, genes: Mapping[str, Sequence[Any]]) -> None:
        self._count, self._mean, self._spread = (
            f"{name}.{what}" for what in ("count", "position_mean", "position_spread")
        )
        self._mixer = registry.get(name).kind == "mixer"
        self._genes = _Means({f"{name}.{gene}": options for gene, options in genes.items()})

    def __call__(self, places: Sequence[float], values: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        """The features of one operator's layers in an architecture.

        places: relative depths of the layers, from 0 to 1.
        values: the values of each layer's genes.
        """
        features = {self._count: float(len(places))}
        if self._mixer:
            places = places or [0.5]  # an absent mixer counts as in the middle, the least surprising place
            mean = sum(places) / len(places)
            features[self._mean] = mean
            features[self._spread] = sqrt(sum([(place - mean) ** 2 for place in places]) / len(places))
        return features | self._genes(values)


class _Means:
    """For every gene with a choice: the mean of its values or, where they are not numbers, the share of each.

    The numbers of every combination are computed once, since a search asks for them all the time.

    genes: name -> values.
    """

    def __init__(self, genes: Mapping[str, Sequence[Any]]) -> None:
        columns = [_column(name, options) for name, options in genes.items()]
        self.names = [name for names, _ in columns for name in names]
        tables = [table for _, table in columns]
        self._rows = {
            values: tuple(
                chain.from_iterable([table[value] for table, value in zip(tables, values, strict=True)])
            )
            for values in product(*genes.values())
        }

    def __call__(self, chosen: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        """The features of some layers; 0 without layers.

        chosen: the values of each layer's genes, in the order of `genes`.
        """
        if not chosen:
            return dict.fromkeys(self.names, 0.0)
        columns = zip(*[self._rows[values] for values in chosen], strict=True)
        return dict(zip(self.names, [sum(column) / len(chosen) for column in columns], strict=True))


def _column(name: str, options: Sequence[Any]) -> tuple[list[str], dict[Any, tuple[float, ...]]]:
    """The names of a gene's features, and {value: its numbers}."""
    if len(options) < 2:
        return [], dict.fromkeys(options, ())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in options):
        return [name], {value: (value,) for value in options}
    return [f"{name}={value}" for value in options], {
        value: tuple(float(value == other) for other in options) for value in options
    }
