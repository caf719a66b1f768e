"""What an architecture may be made of: operators with their genes, widths, depths, normalizations, and all layers that come of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, cast

from operators import registry
from operators.architecture import Layer, NormKind, NormPosition, distinct
from operators.cost import layer_parameters
from operators.operator import Shape

Layers = tuple[Layer, ...]
Norm = tuple[NormKind, NormPosition]
OpenGenes = Mapping[str, Sequence[tuple[int, tuple[Any, ...]]]]
"""Of each operator the genes that have more than one value: their places among its genes, and their values."""


@dataclass(frozen=True, eq=False)
class Part:
    """What a search asks again and again of a layer that it may choose.

    values: of its genes. mixer: whether it is one. ratio: of a feed-forward network's inner width to the width, else 0.
    parameters: how many. written: as JSON.
    """

    layer: Layer
    values: tuple[Any, ...]
    mixer: bool
    ratio: float
    parameters: int
    written: str


@dataclass(frozen=True)
class Choices:
    """What an architecture may be made of.

    operators: names. widths: ascending. depths: fewest and most layers. norms: kind and position of a layer's normalization.
    genes: operator -> gene -> values.
    layers: (operator, width) -> {values of its genes, in the order of `genes`: layer}, without those that cannot be built.
    """

    operators: tuple[str, ...]
    widths: tuple[int, ...]
    depths: tuple[int, int]
    meta_tokens: tuple[int, ...]
    norms: tuple[Norm, ...]
    genes: Mapping[str, Mapping[str, tuple[Any, ...]]]
    layers: Mapping[tuple[str, int], dict[tuple[Any, ...], Layer]]

    def available(self, width: int, kind: str | None = None) -> tuple[str, ...]:
        """The operators (of one kind) that can be built at `width`."""
        return self._available[width, kind]

    @cached_property
    def _available(self) -> dict[tuple[int, str | None], tuple[str, ...]]:
        kinds: dict[str | None, tuple[str, ...]] = {None: self.operators}
        for kind in ("mixer", "feedforward"):
            kinds[kind] = tuple(name for name in self.operators if registry.get(name).kind == kind)
        return {
            (width, kind): tuple(name for name in names if self.layers[name, width])
            for width in self.widths
            for kind, names in kinds.items()
        }

    def at(self, name: str, width: int) -> Layers:
        """The layers that an operator can be at `width`."""
        return tuple(self.layers[name, width].values())

    @cached_property
    def ratios(self) -> OpenGenes:
        """The ratios of feed-forward networks' inner widths to the width."""
        return self._open_genes(ratios=True)

    @cached_property
    def shapes(self) -> OpenGenes:
        """All other genes."""
        return self._open_genes(ratios=False)

    def _open_genes(self, *, ratios: bool) -> OpenGenes:
        return {
            name: [
                (column, options)
                for column, (gene, options) in enumerate(genes.items())
                if len(options) > 1
                and (registry.get(name).kind == "feedforward" and gene == "ratio") == ratios
            ]
            for name, genes in self.genes.items()
        }

    def parts(self, layers: Sequence[Layer], width: int) -> list[Part] | None:
        """What is known of each of the layers; None if one of them is none of the choices at `width`."""
        known = self._known.get(width, {})
        found = list(map(known.get, map(id, layers)))
        if None in found:  # made elsewhere
            equal = {
                place: self._parts.get(width, {}).get(layer) for place, layer in distinct(layers).items()
            }
            found = [equal[id(layer)] for layer in layers]
        return None if None in found else cast(list[Part], found)

    @cached_property
    def _parts(self) -> dict[int, dict[Layer, Part]]:
        """Of each width every layer, as one finds it in an architecture: with each of the normalizations."""
        parts: dict[int, dict[Layer, Part]] = {width: {} for width in self.widths}
        for (name, width), table in self.layers.items():
            mixer = registry.get(name).kind == "mixer"
            for values, layer in table.items():
                ratio = 0.0 if mixer else float(layer.shape.genes(width).get("ratio", 0.0))
                for norm in self.norms:
                    each, size = normalized(layer, norm), layer_parameters(name, layer.shape, norm[0], width)
                    parts[width].setdefault(
                        each, Part(each, values, mixer, ratio, size, each.model_dump_json())
                    )
        return parts

    @cached_property
    def _known(self) -> dict[int, dict[int, Part]]:
        """The same by the layers' `id`: nearly all that a search meets are these very objects, and hashing one takes much longer."""
        return {
            width: {id(layer): part for layer, part in parts.items()} for width, parts in self._parts.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        return {
            field.name: getattr(self, field.name) for field in fields(self)
        }  # an `id` means nothing in a copy

    def values(self, layer: Layer, width: int) -> tuple[Any, ...] | None:
        """The values of the layer's genes, or None if the layer is none of the choices."""
        return self._values.get((layer.operator, width), {}).get(_fields(layer.shape))

    @cached_property
    def _values(self) -> dict[tuple[str, int], dict[tuple[Any, ...], tuple[Any, ...]]]:
        """`layers` the other way round, by the shape's fields; where several values give one shape, the first."""
        return {
            key: {_fields(layer.shape): values for values, layer in reversed(table.items())}
            for key, table in self.layers.items()
        }

    def resized(self, layers: Layers, width_from: int, width_to: int) -> Layers | None:
        """The same genes at another width; where a width cannot have them, the choice that shares most of them."""
        if (width_from, width_to) not in self._resized:
            known = [part.layer for part in self._known.get(width_from, {}).values()]
            self._resized[width_from, width_to] = {
                id(layer): self._resize(layer, width_from, width_to) for layer in known
            }
        table = self._resized[width_from, width_to]
        resized = list(map(table.get, map(id, layers)))
        if not all(resized):  # made elsewhere, or without a choice at that width
            others = {
                place: self._resize(layer, width_from, width_to) for place, layer in distinct(layers).items()
            }
            resized = [others[id(layer)] for layer in layers]
        return cast(Layers, tuple(resized)) if all(resized) else None

    def _resize(self, layer: Layer, width_from: int, width_to: int) -> Layer | None:
        wanted = self.values(layer, width_from)
        nearest = None if wanted is None else self.nearest(layer.operator, width_to, wanted)
        return nearest and normalized(nearest, norm_of(layer))

    @cached_property
    def _resized(self) -> dict[tuple[int, int], dict[int, Layer | None]]:
        """From one width to another what becomes of each layer, by its `id`."""
        return {}

    def nearest(self, name: str, width: int, wanted: tuple[Any, ...]) -> Layer | None:
        """The layer with those values of its genes or, where `width` cannot have them, the choice that shares most of them."""
        table, key = self.layers[name, width], (name, width, wanted)
        if table and key not in self._nearest:
            self._nearest[key] = table[
                max(table, key=lambda values: sum(a == b for a, b in zip(values, wanted, strict=True)))
            ]
        return self._nearest[key] if table else None

    @cached_property
    def _nearest(self) -> dict[tuple[str, int, tuple[Any, ...]], Layer]:
        """What `nearest` found: a search asks for the same few again and again."""
        return {}


def _fields(shape: Shape) -> tuple[Any, ...]:
    # Plain values: hashing and comparing pydantic ones takes longer than all else that is asked of a shape.
    return tuple(shape.__dict__.values())


def norm_of(layer: Layer) -> Norm:
    return layer.norm, layer.norm_position


def normalized(layer: Layer, norm: Norm) -> Layer:
    """The layer with that normalization."""
    return layer if norm_of(layer) == norm else _normalized(layer, norm)


@lru_cache(maxsize=65_536)
def _normalized(layer: Layer, norm: Norm) -> Layer:
    # Kept, so that equal layers of an architecture stay one and the same value.
    return layer.model_copy(update={"norm": norm[0], "norm_position": norm[1]})
