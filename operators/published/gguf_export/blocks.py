"""The layers of an architecture as the blocks of a GGUF model: a mixer and a feed-forward network each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from torch import Tensor

from operators import registry
from operators.architecture import Architecture, Layer
from operators.base.errors import in_words
from operators.layers.normalization import unit_rows
from operators.published.gguf_export.outline import Misfit, Stored
from operators.published.padding import blocks_of

# What stands where a whole model lacks a kind.
SMALLEST = {
    "mixer": ("attention", {"heads": 1, "kv_heads": 1, "head_dim": 2}),
    "feedforward": ("swiglu", {"hidden": 32}),
}
KINDS = tuple(SMALLEST)
OWN_HEAD = "{} always has a head of its own: the embedding is in the file twice"
"""The line for the user on a tied embedding, where the kind of model has no tied one."""


@dataclass(frozen=True)
class Half:
    """One of the two sub-layers of a block.

    layer: ours, or for a sub-layer that we do not have one of its shape.
    number: of our layer; None where we do not have it, and all its weights are zeros.
    """

    layer: Layer
    number: int | None

    @property
    def shape(self) -> Any:
        return self.layer.shape

    def stored(self, tensors: Iterable[Stored]) -> list[Stored]:
        """The tensors of this sub-layer, whose parts are named without the layer's number.

        Where we do not have the layer they are zeros, which add nothing to the residual stream.
        """
        if self.number is None:
            return [replace(tensor, parts=()) for tensor in tensors]
        prefix = f"layers.{self.number}."
        return [
            replace(tensor, parts=tuple(f"{prefix}{part}" for part in tensor.parts)) for tensor in tensors
        ]


@dataclass(frozen=True)
class Block:
    mixer: Half
    feedforward: Half


def shapes_of(architecture: Architecture, operator: str) -> list[tuple[int, Any]]:
    """The number and the shape of each layer with an operator."""
    return [(n, layer.shape) for n, layer in enumerate(architecture.layers) if layer.operator == operator]


def require_one_shape(architecture: Architecture, operator: str, fields: Iterable[str] = ()) -> None:
    """Raises Misfit where layers of an operator differ in these fields of their shape, or in any field."""
    numbered = shapes_of(architecture, operator)
    for number, shape in numbered:
        first_number, first = numbered[0]
        for name in fields or type(shape).model_fields:
            if getattr(shape, name) != getattr(first, name):
                raise Misfit(
                    f"layers.{number}.shape.{name}: expected {_plain(getattr(first, name))}, "
                    f"as in layers.{first_number}, got {_plain(getattr(shape, name))}",
                    layer=number,
                )


def require(architecture: Architecture, operator: str, name: str, expected: Any, why: str = "") -> None:
    """Raises Misfit unless a field of the shape has this value in all layers of an operator."""
    for number, shape in shapes_of(architecture, operator):
        if (got := getattr(shape, name)) != expected:
            raise Misfit(
                f"layers.{number}.shape.{name}: expected {_plain(expected)}{why}, got {_plain(got)}",
                layer=number,
            )


def _plain(value: object) -> str:
    return in_words(value).strip("'")


def blocks(architecture: Architecture, *, missing: Sequence[Layer] = ()) -> list[Block]:
    """The layers in pairs. A sub-layer that a block lacks has zeros for weights.

    It is one of `missing`, or else the smallest of its kind that the model has. A mixer in `missing` is in
    one block at least, at the end if nowhere else.
    """
    lacking = {_kind(layer): layer for layer in missing}
    zeros = {kind: Half(lacking.get(kind) or _smallest(architecture, kind), None) for kind in KINDS}
    numbers = count()

    def half(layer: Layer | None, kind: str) -> Half:
        return zeros[kind] if layer is None else Half(layer, next(numbers))

    paired = [
        Block(half(mixer, "mixer"), half(feedforward, "feedforward"))
        for mixer, feedforward in blocks_of(architecture)
    ]
    if "mixer" in lacking and all(block.mixer.number is not None for block in paired):
        paired.append(Block(zeros["mixer"], zeros["feedforward"]))
    return paired


def _kind(layer: Layer) -> str:
    return registry.get(layer.operator).kind


def _smallest(architecture: Architecture, kind: str) -> Layer:
    """The smallest layer of a kind in the model, or a small one where it has none."""
    members = [layer for layer in architecture.layers if _kind(layer) == kind]
    if not members:
        return small(*SMALLEST[kind])

    def size(layer: Layer) -> int:
        return registry.get(layer.operator).parameters(architecture.width, layer.shape)

    return min(members, key=size)


def small(operator: str, shape: Mapping[str, Any]) -> Layer:
    """A layer to be filled with zeros."""
    return Layer(operator=operator, shape=shape)


def norm(name: str, width: int) -> Stored:
    """The normalization before a layer."""
    return Stored(name, (width,), ("norm.weight",), fill=1.0, precise=True)


def outside(
    architecture: Architecture, output_norm: str = "output_norm", *, tied: bool = True
) -> list[Stored]:
    """The tensors outside of the blocks. A normalized head folds into a head of its own.

    output_norm: the name of the last norm.
    tied: whether the embedding may be the head as well.
    """
    table = (architecture.vocabulary, architecture.width)
    tensors = [
        Stored("token_embd.weight", table, ("embedding.weight",)),
        Stored(f"{output_norm}.weight", (architecture.width,), ("norm.weight",), precise=True),
    ]
    head = "embedding.weight" if architecture.tied_embeddings else "head.weight"
    if architecture.normalized_head:
        tensors.append(Stored("output.weight", table, (head,), unit_rows))
    elif not (tied and architecture.tied_embeddings):
        tensors.append(Stored("output.weight", table, (head,)))
    return tensors


def neighbours(heads: int, values: Tensor) -> Tensor:
    """Rows of each head in llama.cpp's order: the two members of a rotated pair lie side by side.

    We and `transformers` rotate the two halves of a head instead.
    """
    pairs: Tensor = values.unflatten(0, (heads, 2, -1)).transpose(1, 2)
    return pairs.flatten(0, 2)
