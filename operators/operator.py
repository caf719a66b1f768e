"""What an operator must provide. Each file in `library/` ends with one `OPERATOR = Operator(…)`.

In the shapes of tensors B is rows, T tokens, W width, H heads, D head dimension and S slots of a cache.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from operators.rope import Rope
from operators.shape import Shape

State = dict[str, Tensor]
# Fused decode steps take at most so many rows; for more, a library's matrix products are faster.
MOST_FUSED_ROWS = 16


class Surroundings(Protocol):
    """The part of an architecture that its operators see."""

    @property
    def width(self) -> int: ...

    @property
    def norm_eps(self) -> float: ...

    @property
    def rope(self) -> Rope | None: ...


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor that decode state needs."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class OperatorModule(nn.Module):
    """The built operator; subclasses name its matrices by their side of the residual stream.

    reads: linear layers that read the stream.
    within: linear layers that neither read nor write it.
    writes: linear layers that write it.
    joined: the layers of `reads` that `project` applies in one product, if any.
    beside: further layers of `reads` that lie behind those in memory, for one kernel that reads all.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    within: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ()
    joined: ClassVar[tuple[str, ...]] = ()
    beside: ClassVar[tuple[str, ...]] = ()
    _together: "_Together | None" = None

    def lay_together(self) -> None:
        """Moves weights and biases of `joined` and `beside` side by side in memory; they stay parameters."""
        if names := (*self.joined, *self.beside):
            self._together = _Together([self.get_submodule(name) for name in names])

    def project(self, x: Tensor) -> Tensor:
        """x […, W] -> the outputs of the linear layers `joined`, side by side.

        Where nothing is trained and the weights lie together it is one product, which reads the weights
        faster than several small ones.
        """
        together = self.together()
        return torch.cat(self._apart(x), -1) if together is None else self._product(x, together)

    def project_each(self, x: Tensor) -> Sequence[Tensor]:
        """The same as `project`, with one output for each of the layers `joined`."""
        together = self.together()
        if together is None:
            return self._apart(x)
        parts: Sequence[Tensor] = self._product(x, together).split(together.sizes[: len(self.joined)], -1)
        return parts

    def _product(self, x: Tensor, together: "_Together") -> Tensor:
        rows = sum(together.sizes[: len(self.joined)])
        return F.linear(x, together.weight[:rows], None if together.bias is None else together.bias[:rows])

    def together(self) -> "_Together | None":
        """The weights of `joined` and `beside` as one tensor; None in training or where they moved."""
        return (
            self._together
            if self._together is not None and not torch.is_grad_enabled() and self._together.holds()
            else None
        )

    def _apart(self, x: Tensor) -> list[Tensor]:
        return [self.get_submodule(name)(x) for name in self.joined]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._together = None  # every parameter moves to other memory
        super()._apply(fn, recurse)
        return self

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        """All tokens at once: x [B, T, W] -> [B, T, W].

        state: for a prefill: the sequence continues from it, and it is updated in place. None for training.
        position: tokens that each row of the state holds: [B] int64, on the device.
        length: an upper bound of `position` that the host knows.
        """
        raise NotImplementedError

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        """One token: x [B, W] -> [B, W]. Updates `state` in place.

        Nothing in it may wait for the host or branch on values: a CUDA graph is captured from one call
        and replayed for all others.
        """
        raise NotImplementedError


class _Together:
    """Linear layers whose weights [N, W] become views of one tensor `weight`, and biases [N] of `bias`."""

    def __init__(self, layers: list[Any]) -> None:
        self.sizes: list[int] = [layer.weight.shape[0] for layer in layers]
        self.parameters: list[tuple[Any, str, int]] = []
        self.weight = self._laid(layers, "weight")
        self.bias = self._laid(layers, "bias") if layers[0].bias is not None else None

    def _laid(self, layers: list[Any], name: str) -> Tensor:
        parts = [getattr(layer, name) for layer in layers]
        together = torch.cat([part.detach() for part in parts])
        for layer, part, piece in zip(layers, parts, together.split(self.sizes), strict=True):
            part.data = piece
            self.parameters.append((layer, name, piece.data_ptr()))
        return together

    def holds(self) -> bool:
        """Whether the parameters are still views of the tensors, neither copied nor replaced."""
        return all(getattr(layer, name).data_ptr() == address for layer, name, address in self.parameters)


def _accepts_everything(shape: Shape, device: torch.device, dtype: torch.dtype) -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """One implementation of an operator's kernels.

    load: called without arguments; it imports what it needs and returns the kernels in a form that the
        operator's module knows. It raises ImportError.
    refuses: called with (shape, device, dtype); it returns why the backend cannot serve them, or None.
    """

    load: Callable[[], Any]
    refuses: Callable[[Any, torch.device, torch.dtype], str | None] = _accepts_everything


def _no_counters(shape: Any, batch: int) -> dict[str, TensorSpec]:
    return {}


def _serves_every_shape(shape: Any) -> str | None:
    return None


@dataclass(frozen=True)
class FusedStep:
    """The decode step of a layer in few kernels: normalization, operator and sum with the residual stream.

    step: (operator, norm, x [B, W] with B up to `MOST_FUSED_ROWS`, state, position [B]) adds
        operator(norm(x)) to x in place. It returns whether it could; where not, x and state are as before.
    refuses: shape -> why the kernels cannot serve it, or None.
    counters: (shape, batch) -> what the kernels count with, by name: int32 tensors with the batch first,
        zeros before and after a step. They become a part of the layer's state.
    """

    step: Callable[[Any, nn.Module, Tensor, State, Tensor], bool]
    refuses: Callable[[Any], str | None] = _serves_every_shape
    counters: Callable[[Any, int], dict[str, TensorSpec]] = _no_counters


@dataclass(frozen=True)
class FusedHead:
    """The end of a decode step in few kernels.

    product: (x [B, W], weight [V, W], norm=, divisor=) -> norm(x) weightᵀ / divisor: the logits [B, V].
    choose: (logits [B, V], tokens [B], position [B]) writes each row's most likely token and counts it.
    """

    product: Callable[..., Tensor]
    choose: Callable[[Tensor, Tensor, Tensor], None]


def _no_state(shape: Any, batch: int, max_length: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
    return {}


def _none_precise(shape: Any) -> int:
    return 0


@dataclass(frozen=True)
class Operator:
    """A mixer or a feed-forward network, as other code sees it.

    symbol: its letters in the shorthand `d f m f a f`.
    kind: `mixer` or `feedforward`.
    shape: its Shape class.
    genes: the values of each gene that a search may choose.
    parameters: (width, shape) -> exact number of parameters.
    flops: (width, shape, context) -> forward FLOPs of one token that sees `context` tokens; a multiply-add
        counts as 2.
    build: (architecture, shape, kernels) -> module.
    source: the paper or model that defines the operator.
    backends: by name, the fastest first; `reference` is mandatory.
    state: (shape, batch, max_length, dtype of the activations) -> the tensors that decoding needs, by name.
        Each has the batch first, and zeros when it is empty.
    precise: shape -> number of parameters that stay in float32 in a model of fewer bits.
    """

    symbol: str
    kind: Literal["mixer", "feedforward"]
    shape: type[Shape]
    genes: Mapping[str, tuple[Any, ...]]
    parameters: Callable[[int, Any], int]
    flops: Callable[[int, Any, int], int]
    build: Callable[[Surroundings, Any, Any], OperatorModule]
    source: str
    backends: Mapping[str, Backend] = field(default_factory=lambda: {"reference": Backend(load=lambda: None)})
    state: Callable[[Any, int, int, torch.dtype], dict[str, TensorSpec]] = _no_state
    precise: Callable[[Any], int] = _none_precise
