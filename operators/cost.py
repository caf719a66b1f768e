"""What an architecture costs by arithmetic: parameters, bytes and FLOPs. No model is built."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, cast

import torch

from operators import registry
from operators.architecture import Architecture, Layer, NormKind, distinct
from operators.layers.normalization import norm_parameters
from operators.shape import Shape


@dataclass(frozen=True)
class Cost:
    """Exact costs at one batch size and context; meta tokens count on top of the context.

    FLOPs are of the operators and the head alone, without normalizations and residual additions. A
    multiply-add counts as 2.

    params: number of parameters; a tied head counts once.
    param_bytes: bytes of the parameters.
    state_bytes: bytes of decode state for `batch` rows of `context` tokens: kv_bytes + recurrent_bytes.
    kv_bytes: bytes of caches that grow with the context, with or without a sliding window.
    recurrent_bytes: bytes of all other state.
    decode_flops: FLOPs of a decode step of the whole batch that reads the last token of the context.
    prefill_flops: FLOPs to read `context` tokens in every row, up to the logits after the last one.
    decode_bytes: bytes that a decode step has to move at least, see `cost`.
    """

    params: int
    param_bytes: int
    state_bytes: int
    kv_bytes: int
    recurrent_bytes: int
    decode_flops: int
    prefill_flops: int
    decode_bytes: int


def parameters(architecture: Architecture) -> int:
    """Number of parameters of the model that `architecture` describes."""
    return surrounding_parameters(architecture, architecture.width) + _layer_parameters(architecture)


def surrounding_parameters(architecture: Architecture, width: int) -> int:
    """Number of parameters outside of the layers, if the architecture had this width."""
    matrices = 1 if architecture.tied_embeddings else 2
    return (
        matrices * architecture.vocabulary * width
        + architecture.meta_tokens * width
        + norm_parameters("rmsnorm", width)
    )


def cost(architecture: Architecture, *, batch: int, context: int, dtype: torch.dtype = torch.float32) -> Cost:
    """The costs of an architecture at one point.

    A decode step moves each of these bytes once: the weights of layers, final norm and head (tied or not),
    the rows of the embedding that it reads, and caches that grow with the context (keys and values). It reads
    and writes all other state (recurrent), which therefore counts twice.

    batch: rows.
    context: tokens in each row.
    dtype: of weights and activations; that of a device is `Device.dtype`.
    """
    width, itemsize = architecture.width, dtype.itemsize
    tokens = context + architecture.meta_tokens
    params = parameters(architecture)
    precise = kv_bytes = recurrent_bytes = decode_flops = prefill_flops = 0
    counts = Counter(map(id, architecture.layers))
    for place, layer in distinct(architecture.layers).items():
        count, each = counts[place], layer_cost(layer.operator, layer.shape, width, batch, tokens, dtype)
        precise += count * each.precise
        kv_bytes += count * each.kv_bytes
        recurrent_bytes += count * each.recurrent_bytes
        decode_flops += count * batch * each.decode_flops
        prefill_flops += count * batch * each.prefill_flops
    widened = precise * (torch.float32.itemsize - itemsize)  # extra bytes of parameters that stay in float32
    head = batch * 2 * width * architecture.vocabulary
    read = (
        _layer_parameters(architecture)
        + norm_parameters("rmsnorm", width)
        + (architecture.vocabulary + batch) * width
    )
    return Cost(
        params=params,
        param_bytes=params * itemsize + widened,
        state_bytes=kv_bytes + recurrent_bytes,
        kv_bytes=kv_bytes,
        recurrent_bytes=recurrent_bytes,
        decode_flops=decode_flops + head,
        prefill_flops=prefill_flops + head,
        decode_bytes=read * itemsize + widened + kv_bytes + 2 * recurrent_bytes,
    )


class LayerCost(NamedTuple):
    """The costs of one layer.

    precise: parameters that stay in float32.
    kv_bytes, recurrent_bytes: as in `Cost`.
    decode_flops, prefill_flops: as in `Cost`, of one row.
    """

    precise: int
    kv_bytes: int
    recurrent_bytes: int
    decode_flops: int
    prefill_flops: int


@lru_cache(maxsize=65_536)
def layer_cost(name: str, shape: Shape, width: int, batch: int, tokens: int, dtype: torch.dtype) -> LayerCost:
    """The costs of one layer. Kept, as a search asks for the same few layers again and again.

    batch: rows.
    tokens: in each row, meta tokens included.
    dtype: of weights and activations.
    """
    operator = registry.get(name)
    # A cache that grows with the context is larger for two tokens than for one.
    shortest, longer = operator.state(shape, batch, 1, dtype), operator.state(shape, batch, 2, dtype)
    kv_bytes = recurrent_bytes = 0
    for key, spec in operator.state(shape, batch, tokens, dtype).items():
        if shortest[key] != longer[key]:
            kv_bytes += spec.bytes
        else:
            recurrent_bytes += spec.bytes

    def flops(seen: int) -> int:
        return operator.flops(width, shape, seen)

    return LayerCost(
        operator.precise(shape), kv_bytes, recurrent_bytes, flops(tokens), _sum(flops, 1, tokens)
    )


def _layer_parameters(architecture: Architecture) -> int:
    return sum(layer_sizes(architecture.layers, architecture.width))


# Width -> `id` of a layer -> its number of parameters. A search asks for the same few objects thousands of
# times, and to hash a layer's shape takes ten times as long as its `id`. The layers are kept, so that no
# other object gets the `id` of one of them.
_sizes: dict[int, dict[int, int]] = {}
_kept: list[Layer] = []
_MOST_KEPT = 65_536


def layer_sizes(layers: Sequence[Layer], width: int) -> list[int]:
    """Number of parameters of each of the layers."""
    known = _sizes.setdefault(width, {})
    sizes = list(map(known.get, map(id, layers)))
    if all(sizes):  # none is unknown; a layer of size 0 would only be looked up again
        return cast("list[int]", sizes)
    if len(_kept) > _MOST_KEPT:
        _sizes.clear()
        _kept.clear()
        known = _sizes.setdefault(width, {})
    for place, layer in distinct(layers).items():
        if place not in known:
            known[place] = layer_parameters(layer.operator, layer.shape, layer.norm, width)
            _kept.append(layer)
    return [known[id(layer)] for layer in layers]


@lru_cache(maxsize=65_536)
def layer_parameters(operator: str, shape: Shape, norm: NormKind, width: int) -> int:
    """Number of parameters of one layer. Kept, as a search asks for the same few layers again and again."""
    return registry.get(operator).parameters(width, shape) + norm_parameters(norm, width)


def _sum(function: Callable[[int], int], first: int, last: int) -> int:
    """Σ function(i) for i from `first` to `last`, in about log(last) calls instead of `last`.

    It is exact for a concave or convex function: there, three points on one line mean that the
    function is linear between them. FLOPs over the context are such a function: constant, linear,
    or linear up to a window.
    """
    middle = (first + last) // 2
    low, center, high = function(first), function(middle), function(last)
    if (center - low) * (last - middle) == (high - center) * (middle - first):
        return (low + high) * (last - first + 1) // 2
    return _sum(function, first, middle) + _sum(function, middle + 1, last)


def training_flops(architecture: Architecture, sequence_length: int) -> float:
    """FLOPs of the model to train on one token, the mean over a sequence: three times the forward pass.

    They are of the operators and the head alone, and a multiply-add counts as 2. Meta tokens are read once a
    sequence. What is computed again to save memory does not count.
    """
    width, tokens = architecture.width, sequence_length + architecture.meta_tokens
    forward = 2 * width * architecture.vocabulary * sequence_length
    for (name, shape), count in Counter(
        (layer.operator, layer.shape) for layer in architecture.layers
    ).items():
        flops = registry.get(name).flops
        forward += count * sum(flops(width, shape, context) for context in range(1, tokens + 1))
    return 3 * forward / sequence_length
