"""What the page shows of architectures: layers with shapes and costs, and the parts of models that see."""

from collections.abc import Mapping
from typing import Any

import torch

from operators import Architecture, VisionLanguage, registry
from operators.architecture import Layer
from operators.cost import layer_cost, layer_parameters, surrounding_parameters
from operators.vision.vision_language import Model
from search.view.page.shared import Shared
from search.view.vision_profiles import vision_parts

_DTYPE = (
    torch.float32
)  # bytes of state are told as for this one; shares between layers are the same in others


class Layers:
    """The layers of many candidates, each once.

    context: tokens of a row, for which costs are told.
    """

    def __init__(self, *, context: int) -> None:
        self._context = context
        self._shared = Shared()
        self._parts = Shared()

    def of(self, architecture: Model) -> dict[str, Any]:
        """What is shown of one architecture; layers and parts are places in `tables`."""
        language = architecture.language if isinstance(architecture, VisionLanguage) else architecture
        parts = None
        if isinstance(architecture, VisionLanguage):
            sheet = vision_parts(architecture)
            parts = self._parts.place([list(row) for row in sheet.rows], key=sheet.rows)
        return {
            "layers": [self._place(layer, language) for layer in language.layers],
            "width": language.width,
            "depth": language.depth,
            "around": surrounding_parameters(language, language.width),
            "model": _surroundings(language),
            "parts": parts,
        }

    def tables(self) -> dict[str, Any]:
        return {"layers": self._shared.values, "parts": self._parts.values, "context": self._context}

    def _place(self, layer: Layer, language: Architecture) -> int:
        width, tokens = language.width, self._context + language.meta_tokens
        key = (layer.operator, layer.shape, layer.norm, layer.norm_position, width, tokens)
        return self._shared.place(self._described(layer, width, tokens), key=key)

    def _described(self, layer: Layer, width: int, tokens: int) -> dict[str, Any]:
        costs = layer_cost(layer.operator, layer.shape, width, 1, tokens, _DTYPE)
        return {
            "operator": layer.operator,
            "symbol": registry.get(layer.operator).symbol,
            "shape": layer.shape.model_dump(mode="json"),
            "norm": f"{layer.norm} {layer.norm_position}",
            "params": layer_parameters(layer.operator, layer.shape, layer.norm, width),
            "flops": costs.decode_flops,
            "state": costs.kv_bytes + costs.recurrent_bytes,
        }


def _surroundings(language: Architecture) -> Mapping[str, Any]:
    """The keys of an architecture beside its layers, as text."""
    keys = language.model_dump(mode="json", exclude={"layers", "name", "width"})
    return {key: value if isinstance(value, str) else _text(value) for key, value in keys.items()}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
