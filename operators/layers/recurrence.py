"""Shared by recurrent operators: the form of their kernels, sequences in chunks, state from chunk to chunk.

In the shapes of tensors N is chunks and L tokens of a chunk.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from operators.layers.short_convolution import Convolution
from operators.operator import OperatorModule, State

# mamba_ssm's kernels compute addresses within a tensor in 32 bits, and read other memory beyond that.
LARGEST_INDEX = 2**31 - 1


@dataclass(frozen=True)
class Recurrence:
    """The kernels of a recurrent operator, from one of its backends; its file gives their arguments.

    scan: a whole sequence from an initial state (None: zeros) -> the output and the final state. Without an
        initial state a library may return None for the final one.
    step: one token -> the output; the state is updated in place.
    convolution: the kernels of the convolution before the recurrence; None for the reference.
    """

    scan: Callable[..., tuple[Tensor, Tensor]]
    step: Callable[..., Tensor]
    convolution: Convolution | None = None


class KeepsFloat32(OperatorModule):
    """An operator with parameters that stay in float32 in a model of another dtype.

    Rounded to bfloat16 these parameters (decay rates, say) would mean something else.

    precise: their names.
    """

    precise: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        parameters = [self.get_parameter(name) for name in self.precise]
        kept = {
            id(tensor)
            for parameter in parameters
            for tensor in (parameter, parameter.grad)
            if tensor is not None
        }

        def applied(tensor: Tensor) -> Tensor:
            out = fn(tensor)
            return out if id(tensor) not in kept or out.dtype == tensor.dtype else tensor.to(out.device)

        super()._apply(applied, recurse)
        return self


def by_rows(
    forward: Callable[[Tensor, State | None], Tensor], x: Tensor, state: State | None, rows: int
) -> Tensor:
    """What `forward` gives for x [B, T, W], called with a few rows and their part of the state at a time.

    rows: how many at once, where the kernels cannot address all.
    """
    parts = []
    for first in range(0, x.shape[0], rows):
        of_rows = {name: y[first : first + rows] for name, y in (state or {}).items()}
        parts.append(forward(x[first : first + rows], of_rows or None))
    return torch.cat(parts)


def by_chunk(x: Tensor, size: int) -> Tensor:
    """x [B, T, H, D] -> a view [N, B, H, L, D] with L = `size`; zeros fill up the last chunk."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % size)) if x.shape[1] % size else x
    chunks: Tensor = x.unflatten(1, (-1, size))
    return chunks.permute(1, 0, 3, 2, 4)


def from_chunks(x: Tensor, tokens: int) -> Tensor:
    """The inverse of `by_chunk`: x [N, B, H, L, D] -> [B, T, H, D] with T = `tokens`, without the filling."""
    return x.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :tokens]


def carry(decay: Tensor, written: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    """The state before each chunk [N, …] and after the last one […].

    A chunk turns a state into decay[n] · state + written[n].

    decay: broadcasts against `written`.
    written: what each chunk adds [N, …].
    initial: the state before the first chunk […].
    """
    state, before = initial, []
    for factor, addition in zip(decay.unbind(0), written.unbind(0), strict=True):
        before.append(state)
        state = torch.addcmul(addition, factor, state)
    return torch.stack(before), state


def initial_dt_bias(heads: int) -> Tensor:
    """[H]: the inverse softplus of step sizes that are log-uniform in [1e-3, 1e-1], as in Mamba."""
    dt = torch.exp(torch.empty(heads).uniform_(math.log(1e-3), math.log(1e-1)))
    return dt + torch.log(-torch.expm1(-dt))
