"""The shapes of a model's parameters, without the model."""

from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from operators.architecture import Architecture
from operators.model import HybridLM


class Undrawn(TorchFunctionMode):
    """Within it no function of torch.nn.init does anything.

    On the device `meta` they would load torch's compiler, for two seconds, and be slow after that.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(function, "__module__", None) == nn.init.__name__:
            return args[0] if args else (kwargs or {})["tensor"]
        return function(*args, **(kwargs or {}))


def parameter_shapes(architecture: Architecture) -> dict[str, torch.Size]:
    """The shape of each parameter of a model, by name; nothing is allocated."""
    return dict(_parameter_shapes(architecture))


@lru_cache(maxsize=8)  # a model is read, checked and written in turn, each time by its shapes
def _parameter_shapes(architecture: Architecture) -> tuple[tuple[str, torch.Size], ...]:
    with torch.device("meta"), Undrawn():
        model = HybridLM(architecture, backend="reference", device="meta")
    return tuple((name, tensor.shape) for name, tensor in model.state_dict().items())
