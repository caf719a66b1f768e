"""The layers of an architecture as the blocks of a GGUF model: a mixer and a feed-forward network each."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from operators import registry
from operators.architecture import Architecture, Layer
from operators.published.gguf_export.outline import Misfit, Stored

KINDS = {"mixer": "mixer", "feedforward": "feed-forward network"}


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


def require_plain(architecture: Architecture, operators: Iterable[str]) -> None:
    """Raises Misfit unless every layer has one of these operators and an RMSNorm before it."""
    known = tuple(operators)
    for number, layer in enumerate(architecture.layers):
        if layer.operator not in known:
            raise Misfit(
                f"layers.{number}: expected {' or '.join(known)} as in the layers before, "
                f"got {layer.operator}",
                layer=number,
            )
        if layer.norm != "rmsnorm":
            raise Misfit(f"layers.{number}.norm: expected rmsnorm, got {layer.norm}", layer=number)
        if layer.norm_position != "before":
            raise Misfit(
                f"layers.{number}.norm_position: expected before, got {layer.norm_position}", layer=number
            )


def require_one_shape(architecture: Architecture, operator: str, fields: Iterable[str] = ()) -> None:
    """Raises Misfit where layers of an operator differ in these fields of their shape, or in any field."""
    numbered = [(n, layer) for n, layer in enumerate(architecture.layers) if layer.operator == operator]
    for number, layer in numbered:
        for name in fields or type(layer.shape).model_fields:
            first = getattr(numbered[0][1].shape, name)
            if getattr(layer.shape, name) != first:
                raise Misfit(
                    f"layers.{number}.shape.{name}: expected {first}, as in layers.{numbered[0][0]}, "
                    f"got {getattr(layer.shape, name)}",
                    layer=number,
                )


def require(architecture: Architecture, operator: str, name: str, expected: Any, why: str = "") -> None:
    """Raises Misfit unless a field of the shape has this value in all layers of an operator."""
    for number, layer in enumerate(architecture.layers):
        if layer.operator == operator and getattr(layer.shape, name) != expected:
            wanted = {None: "null", True: "true", False: "false"}.get(expected, expected)
            raise Misfit(
                f"layers.{number}.shape.{name}: expected {wanted}{why}, got {getattr(layer.shape, name)}",
                layer=number,
            )


def blocks(architecture: Architecture) -> list[Block]:
    """The layers in pairs. A missing mixer is the smallest mixer that the model has, with zeros for weights.

    Raises Misfit for a model without a mixer or without a feed-forward network.
    """
    halves = [Half(layer, number) for number, layer in enumerate(architecture.layers)]
    kinds = {kind: [half for half in halves if _kind(half) == kind] for kind in KINDS}
    for kind, members in kinds.items():
        if not members:
            raise Misfit(f"layers: expected at least one {KINDS[kind]}, got none", layer=0)
    smallest = {
        kind: replace(min(members, key=lambda half: _size(architecture, half)), number=None)
        for kind, members in kinds.items()
    }
    paired: list[Block] = []
    waiting: Half | None = None
    for half in halves:
        if _kind(half) == "mixer":
            if waiting is not None:
                paired.append(Block(waiting, smallest["feedforward"]))
            waiting = half
        else:
            paired.append(Block(waiting or smallest["mixer"], half))
            waiting = None
    return paired if waiting is None else [*paired, Block(waiting, smallest["feedforward"])]


def _kind(half: Half) -> str:
    return registry.get(half.layer.operator).kind


def _size(architecture: Architecture, half: Half) -> int:
    return registry.get(half.layer.operator).parameters(architecture.width, half.shape)


def norm(name: str, width: int) -> Stored:
    """The normalization before a layer."""
    return Stored(name, (width,), ("norm.weight",), fill=1.0, precise=True)


def outside(architecture: Architecture, output_norm: str = "output_norm") -> list[Stored]:
    """The tensors outside of the blocks. A normalized head folds into a head of its own.

    Raises Misfit for meta tokens.
    """
    if architecture.meta_tokens:
        raise Misfit(
            f"meta_tokens: expected 0, as the tokenizer of llama.cpp puts one token before a text at most, "
            f"got {architecture.meta_tokens}",
            layer=0,
        )
    table = (architecture.vocabulary, architecture.width)
    tensors = [
        Stored("token_embd.weight", table, ("embedding.weight",)),
        Stored(f"{output_norm}.weight", (architecture.width,), ("norm.weight",), precise=True),
    ]
    head = "embedding.weight" if architecture.tied_embeddings else "head.weight"
    if architecture.normalized_head:
        tensors.append(Stored("output.weight", table, (head,), _unit_rows))
    elif not architecture.tied_embeddings:
        tensors.append(Stored("output.weight", table, (head,)))
    return tensors


def _unit_rows(matrix: Tensor) -> Tensor:
    return torch.nn.functional.normalize(matrix, dim=1)


def neighbours(heads: int, values: Tensor) -> Tensor:
    """Rows of each head in llama.cpp's order: the two members of a rotated pair lie side by side.

    We and `transformers` rotate the two halves of a head instead.
    """
    return values.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
