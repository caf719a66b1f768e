"""The choices for an architecture: operators with genes, widths, depths, normalizations, and all layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, cast

from operators import registry
from operators.architecture import Layer, NormKind, NormPosition, distinct
from operators.shape import Shape

Layers = tuple[Layer, ...]
Norm = tuple[NormKind, NormPosition]
OpenGenes = Mapping[str, Sequence[tuple[int, tuple[Any, ...]]]]
"""Operator -> its genes with more than one value, each as (place among its genes, values)."""


@dataclass(frozen=True, eq=False)
class Part:
    """Facts about one layer that a search needs again and again.

    layer: the layer.
    values: the values of its genes, in the order of the operator's genes.
    mixer: whether it is a mixer.
    ratio: inner width of a feed-forward network over the width; 0 for a mixer.
    parameters: number of parameters.
    number: its place in `Choices.all_parts`.
    code: its number as text.
    """

    layer: Layer
    values: tuple[Any, ...]
    mixer: bool
    ratio: float
    parameters: int
    number: int
    code: str


@dataclass(frozen=True)
class Choices:
    """All choices that a search space gives for an architecture.

    operators: names of operators.
    widths: widths, ascending.
    depths: fewest and most layers.
    meta_tokens: numbers of learned tokens before the text.
    norms: kinds and positions of a layer's normalization.
    genes: operator -> gene -> values.
    layers: (operator, width) -> {values of its genes, in the order of `genes`: layer}. Combinations that
        cannot be built are left out.
    """

    operators: tuple[str, ...]
    widths: tuple[int, ...]
    depths: tuple[int, int]
    meta_tokens: tuple[int, ...]
    norms: tuple[Norm, ...]
    genes: Mapping[str, Mapping[str, tuple[Any, ...]]]
    layers: Mapping[tuple[str, int], dict[tuple[Any, ...], Layer]]

    def available(self, width: int, kind: str | None = None) -> tuple[str, ...]:
        """The operators that can be built at this width.

        kind: `mixer` or `feedforward`; None means both.
        """
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
        """All layers of an operator at this width."""
        return self._at[name, width]

    @cached_property
    def _at(self) -> dict[tuple[str, int], Layers]:
        return {key: tuple(table.values()) for key, table in self.layers.items()}

    @cached_property
    def ratios(self) -> OpenGenes:
        """The genes that set a feed-forward network's inner width, as a ratio to the width."""
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
        """The facts about each of the layers; None if one of them is not among the choices at this width."""
        known = self._known.get(width, {})
        parts = list(map(known.get, map(id, layers)))
        if not all(parts):  # a layer that was made elsewhere is equal to a choice, but another object
            equal = {
                place: self._parts.get(width, {}).get(layer) for place, layer in distinct(layers).items()
            }
            parts = [equal[id(layer)] for layer in layers]
            if not all(parts):
                return None
        return cast("list[Part]", parts)

    @cached_property
    def all_parts(self) -> tuple[Part, ...]:
        """The facts about every layer at every width, by their numbers."""
        return tuple(part for parts in self._parts.values() for part in parts.values())

    @cached_property
    def _parts(self) -> dict[int, dict[Layer, Part]]:
        """Width -> every layer that an architecture can contain, in each normalization -> its facts."""
        from operators.cost import layer_parameters  # needs torch, and to read a run does not

        parts: dict[int, dict[Layer, Part]] = {width: {} for width in self.widths}
        number = 0
        for width, name in product(self.widths, self.operators):
            mixer = registry.get(name).kind == "mixer"
            for values, layer in self.layers[name, width].items():
                ratio = 0.0 if mixer else float(layer.shape.genes(width).get("ratio", 0.0))
                for norm in self.norms:
                    each, size = normalized(layer, norm), layer_parameters(name, layer.shape, norm[0], width)
                    if each not in parts[width]:
                        parts[width][each] = Part(each, values, mixer, ratio, size, number, f"{number},")
                        number += 1
        return parts

    @cached_property
    def _known(self) -> dict[int, dict[int, Part]]:
        """`_parts` by the layers' `id`.

        Nearly all layers in a search are these very objects, and hashing a layer takes longer than its id.
        """
        return {
            width: {id(layer): part for layer, part in parts.items()} for width, parts in self._parts.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        # Only the fields are copied: the cached tables are keyed by `id`, which means nothing in a copy.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def values(self, layer: Layer, width: int) -> tuple[Any, ...] | None:
        """The values of the layer's genes; None if the layer is not among the choices."""
        part = self._known.get(width, {}).get(id(layer))
        if part is not None:
            return part.values
        return self._values.get((layer.operator, width), {}).get(_fields(layer.shape))

    @cached_property
    def _values(self) -> dict[tuple[str, int], dict[tuple[Any, ...], tuple[Any, ...]]]:
        """`layers` inverted: (operator, width) -> {fields of a shape: values}.

        Where several values give equal shapes, the first of them stands.
        """
        return {
            key: {_fields(layer.shape): values for values, layer in reversed(table.items())}
            for key, table in self.layers.items()
        }

    def resized(self, layers: Layers, width_from: int, width_to: int) -> Layers | None:
        """The layers with the same genes at another width, or None if an operator cannot be built there.

        Where the new width cannot have a layer's genes, it becomes the choice that shares most of them.
        """
        if (width_from, width_to) not in self._resized:
            known = [part.layer for part in self._known.get(width_from, {}).values()]
            self._resized[width_from, width_to] = {
                id(layer): self._resize(layer, width_from, width_to) for layer in known
            }
        table = self._resized[width_from, width_to]
        resized = list(map(table.get, map(id, layers)))
        if not all(resized):  # some layers were made elsewhere, or have no choice at that width
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
        """(width from, width to) -> {`id` of a layer: the resized layer}; filled as widths are asked for."""
        return {}

    def nearest(self, name: str, width: int, wanted: tuple[Any, ...]) -> Layer | None:
        """The operator's layer that shares most of the wanted values; None if there is none at this width."""
        table, key = self.layers[name, width], (name, width, wanted)
        if table and key not in self._nearest:
            self._nearest[key] = table[
                max(table, key=lambda values: sum(a == b for a, b in zip(values, wanted, strict=True)))
            ]
        return self._nearest[key] if table else None

    @cached_property
    def _nearest(self) -> dict[tuple[str, int, tuple[Any, ...]], Layer]:
        """The results of `nearest`: a search asks for the same few again and again."""
        return {}


def _fields(shape: Shape) -> tuple[Any, ...]:
    # A tuple of plain values: hashing and comparing pydantic objects would take longer than all other work.
    return tuple(shape.__dict__.values())


def norm_of(layer: Layer) -> Norm:
    return layer.norm, layer.norm_position


def normalized(layer: Layer, norm: Norm) -> Layer:
    """The layer with this normalization."""
    return layer if norm_of(layer) == norm else _normalized(layer, norm)


@lru_cache(maxsize=65_536)
def _normalized(layer: Layer, norm: Norm) -> Layer:
    # Cached, so that equal layers of an architecture stay one object.
    return layer.model_copy(update={"norm": norm[0], "norm_position": norm[1]})
