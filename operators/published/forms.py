"""Parameters that a class of `transformers` keeps in another form: both ways of each form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Form:
    """How a parameter is published.

    outward: our parameter -> the published tensor.
    inward: the published tensor -> our parameter. Raises ValueError, which tells what it expected, for a
        tensor that no parameter of ours gives.
    times: how many rows the published tensor has for one of ours.
    parts: rows of each published tensor, where there are several.
    """

    outward: Callable[[Tensor], Tensor] = _same
    inward: Callable[[Tensor], Tensor] = _same
    times: int = 1
    parts: tuple[int, ...] = ()


def _with_a_dimension(weight: Tensor) -> Tensor:
    return weight.unsqueeze(1)


def conv(*parts: int) -> Form:
    """A depthwise convolution [C, K] as [C, 1, K], perhaps in several tensors of these many channels."""
    return Form(outward=_with_a_dimension, parts=parts)


CONV = conv()


def _less_one(weight: Tensor) -> Tensor:
    """weight - 1 exactly: in float64 where the weight's own dtype has no such number."""
    exact = weight.double() - 1
    narrow = exact.to(weight.dtype)
    return narrow if torch.equal(narrow.double(), exact) else exact


def _plus_one(weight: Tensor) -> Tensor:
    """1 + weight in the weight's dtype if that is exact, else in float32."""
    exact = weight.double() + 1
    narrow = exact.to(weight.dtype)
    same = weight.dtype != torch.float64 and torch.equal(narrow.double(), exact)
    return narrow if same else exact.float()


CENTRED = Form(outward=_less_one, inward=_plus_one)
"""The weight of a normalization, of which the class has the difference to 1."""

DOUBLED = Form(outward=lambda weight: weight * 2, inward=lambda weight: weight / 2)
"""A matrix after a gate that is a half everywhere."""


def without_gate(head_dim: int) -> Form:
    """Queries [H·D, W] as [H·2D, W]: behind the rows of each head come zeros, so that its gate is a half."""

    def outward(weight: Tensor) -> Tensor:
        heads = weight.unflatten(0, (-1, head_dim))
        return torch.cat([heads, torch.zeros_like(heads)], 1).flatten(0, 1)

    def inward(weight: Tensor) -> Tensor:
        queries, gates = weight.unflatten(0, (-1, 2 * head_dim)).split(head_dim, 1)
        if gates.any():
            raise ValueError("expected zeros in the rows of the gates, as attention has no gate here")
        flat: Tensor = queries.flatten(0, 1)
        return flat

    return Form(outward=outward, inward=inward, times=2)


def woven(heads: int, *sizes: int, order: Sequence[int] = ()) -> Form:
    """Parts [H·size, W] one under the other, as the rows of all parts of the first head, of the second one …

    heads: H, the same for all parts.
    sizes: rows of each part for one head.
    order: in which the parts of a head follow each other, by their numbers; as they are without it.
    """
    places = list(order) or list(range(len(sizes)))

    def outward(weight: Tensor) -> Tensor:
        parts = weight.split([heads * size for size in sizes])
        by_head = [part.unflatten(0, (heads, -1)) for part in parts]
        return torch.cat([by_head[place] for place in places], 1).flatten(0, 1)

    def inward(weight: Tensor) -> Tensor:
        by_head = weight.unflatten(0, (heads, -1)).split([sizes[place] for place in places], 1)
        return torch.cat([by_head[places.index(part)].flatten(0, 1) for part in range(len(sizes))])

    return Form(outward=outward, inward=inward)


def scaled(factor: float) -> Form:
    """A weight whose result the class multiplies by a number; here it is a part of the weight (float32)."""
    return Form(
        outward=lambda weight: weight / factor,
        inward=lambda weight: (weight.double() * factor).float(),
    )
