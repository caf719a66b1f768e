"""Layers of zeros: a class that wants a layer where an architecture has none gets one that adds nothing."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from operators import registry
from operators.architecture import Architecture, Layer
from operators.base.errors import DataError
from operators.published.settings import Settings

PADDING = "frontrunner_zero_layers"
"""The key of a config.json that lists the numbers of such layers, among all layers in our terms."""

ZERO_BIASES = "frontrunner_zero_biases"
"""The key of a config.json that tells that all biases of attention are zeros, as our attention has none."""

ZERO_ATTENTION = "frontrunner_zero_attention"
"""The key of a config.json that tells that all latent attention is of zeros, as we have no such operator."""

_LAYER = re.compile(r"layers\.(\d+)\.(.*)")

Block = tuple[Layer | None, Layer | None]


def blocks_of(architecture: Architecture) -> list[Block]:
    """The layers in pairs of a mixer and a feed-forward network, either of which may be missing."""
    blocks: list[Block] = []
    for layer in architecture.layers:
        if registry.get(layer.operator).kind == "mixer":
            blocks.append((layer, None))
        elif blocks and blocks[-1][1] is None:
            blocks[-1] = (blocks[-1][0], layer)
        else:
            blocks.append((None, layer))
    return blocks


def missing(blocks: Sequence[Block]) -> list[int]:
    """The numbers of the layers that blocks lack, where each block counts as two layers."""
    return [
        2 * number + slot for number, block in enumerate(blocks) for slot in (0, 1) if block[slot] is None
    ]


def padded_layers(config: Settings, layers: int) -> frozenset[int]:
    """The numbers of a model's layers of zeros.

    layers: how many it has.

    Raises ArchitectureError.
    """
    numbers = config.get(PADDING, default=[])
    sound = isinstance(numbers, list) and all(
        isinstance(number, int) and not isinstance(number, bool) and 0 <= number < layers
        for number in numbers
    )
    if not sound or not len(set(numbers)) == len(numbers) < layers:
        raise config.error(PADDING, f"some of the numbers from 0 to {layers - 1}", numbers)
    return frozenset(numbers)


def without_padding(
    weights: Mapping[str, Tensor], padding: Sequence[int], *, where: object
) -> dict[str, Tensor]:
    """The weights of a model without its layers of zeros.

    weights: of the whole model, by name.
    padding: the numbers of these layers.
    where: their file or folder, for messages.

    Raises DataError where such a layer has other weights than zeros.
    """
    kept = {}
    for name, tensor in weights.items():
        inside = _LAYER.fullmatch(name)
        if inside is None:
            kept[name] = tensor
        elif (number := int(inside[1])) not in padding:
            kept[f"layers.{number - sum(zeros < number for zeros in padding)}.{inside[2]}"] = tensor
        elif tensor.any():
            raise DataError(
                f"{where}: {PADDING}: expected zeros in layer {number}, got others in {inside[2]}"
            )
    return kept


def with_padding(
    weights: Mapping[str, Tensor], padding: Sequence[int], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """The inverse of `without_padding`.

    shapes: of all parameters of the whole model.
    """
    real = [number for number in range(len(padding) + len(weights)) if number not in padding]
    ours = {}
    for name, tensor in weights.items():
        inside = _LAYER.fullmatch(name)
        ours[name if inside is None else f"layers.{real[int(inside[1])]}.{inside[2]}"] = tensor
    dtype = weights["embedding.weight"].dtype
    return {
        name: ours[name] if name in ours else torch.zeros(shape, dtype=dtype)
        for name, shape in shapes.items()
    }
