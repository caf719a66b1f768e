"""Members of a space of architectures in numbers, for whatever learns from them."""

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
    """Counts and positions of operators, sizes, and for each gene with a choice its mean or, if no number, each value's share."""

    def __init__(self, choices: Choices) -> None:
        self._norms = _Means({"norm": [" ".join(norm) for norm in choices.norms]})
        self._operators = {name: _Operator(name, choices.genes[name]) for name in choices.operators}
        self._absent = {name: operator([], []) for name, operator in self._operators.items()}

    def __call__(self, member: Architecture, parts: Sequence[Part]) -> dict[str, float]:
        """Of a member and what is known of its layers: finite numbers, with the same keys for every member."""
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
        """Of the layers' places, from 0 to 1, in the middle where there are none, and the values of their genes."""
        found = {self._count: float(len(places))}
        if self._mixer:
            places = places or [0.5]
            mean = sum(places) / len(places)
            found[self._mean] = mean
            found[self._spread] = sqrt(sum([(place - mean) ** 2 for place in places]) / len(places))
        return found | self._genes(values)


class _Means:
    """Of every gene with a choice the mean where its values are numbers, else the share of each value.

    genes: name -> values. What each combination counts as is looked up, since a search asks for it all the time.
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
        """Of the genes' values, in the order of `genes`, of some layers; 0 where there are none."""
        if not chosen:
            return dict.fromkeys(self.names, 0.0)
        columns = zip(*[self._rows[values] for values in chosen], strict=True)
        return dict(zip(self.names, [sum(column) / len(chosen) for column in columns], strict=True))


def _column(name: str, options: Sequence[Any]) -> tuple[list[str], dict[Any, tuple[float, ...]]]:
    """The names of a gene's features, and each of its values in numbers."""
    if len(options) < 2:
        return [], dict.fromkeys(options, ())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in options):
        return [name], {value: (value,) for value in options}
    return [f"{name}={value}" for value in options], {
        value: tuple(float(value == other) for other in options) for value in options
    }
