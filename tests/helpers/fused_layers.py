"""Layers with and without fused decode steps, on a GPU where there is one and in float32 elsewhere."""

from typing import Any

import torch
from torch import Tensor, nn

from operators import Architecture, HybridLM, Layer
from operators.layers.residual import ResidualLayer
from operators.rope import Rope

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPE = torch.bfloat16 if ON_GPU else torch.float32
# Of the largest number. Sixteen bits round each result, and the two sides add up in different orders.
TOLERANCE = 2e-2 if ON_GPU else 2e-6


def layer(operator: str, norm: str = "rmsnorm", **shape: Any) -> Layer:
    return Layer.model_validate({"operator": operator, "shape": shape, "norm": norm})


def models(*layers: Layer, width: int = 40, **fields: Any) -> tuple[HybridLM, HybridLM]:
    """A model with fused steps in `DTYPE`, and the same by the reference in float32.

    None of their vectors is the same in all places, as many are at first.
    """
    architecture = Architecture(width=width, vocabulary=61, layers=layers, rope=Rope(theta=100.0), **fields)
    torch.manual_seed(0)
    fused = HybridLM(architecture, backend="triton", device=DEVICE, dtype=DTYPE).eval()
    matrices = {module.weight for module in fused.modules() if isinstance(module, nn.Linear | nn.Embedding)}
    with torch.no_grad():
        for parameter in fused.parameters():
            if parameter not in matrices:
                parameter.add_(0.3 * torch.randn_like(parameter))
    reference = HybridLM(architecture, backend="reference", device=DEVICE).eval()
    reference.load_state_dict({name: tensor.float() for name, tensor in fused.state_dict().items()})
    return fused, reference


def first_layer(model: HybridLM) -> ResidualLayer:
    built = model.layers[0]
    assert isinstance(built, ResidualLayer)
    return built


def far(got: Tensor, expected: Tensor) -> float:
    """The largest difference, in parts of the largest number; infinite where a number is missing."""
    if not bool(torch.isfinite(got).all()):
        return float("inf")
    return float((got.float() - expected.float()).abs().max() / expected.float().abs().max().clamp_min(1e-3))
