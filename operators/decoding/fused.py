"""Finds the decode steps of whole layers in our own Triton kernels.

The files beside this one have the steps. Only they import Triton, so they are imported when they are needed.
"""

import importlib
from typing import Any

import torch

from operators.architecture import Layer
from operators.kernels.launching import refuses_kernels
from operators.kernels.libraries import set_up_triton
from operators.operator import FusedStep

# The backend's name for users.
TRITON = "triton"
# Operator -> the file beside this one that has its step.
FILES = {
    "attention": "attention",
    "swiglu": "feed_forward",
    "relu2": "feed_forward",
    "mamba": "mamba",
    "mamba2": "mamba2",
    "mamba3": "mamba3",
    "short_conv": "short_conv",
    "deltanet": "delta_rule",
    "gated_deltanet": "delta_rule",
    "kda": "delta_rule",
    "gla": "linear_attention",
    "retnet": "linear_attention",
    "rwkv7": "rwkv7",
}


def fused(operator: str) -> FusedStep:
    """The fused step of an operator in `FILES`. Raises ImportError without Triton."""
    step: FusedStep = importlib.import_module(f"operators.decoding.{FILES[operator]}").STEP
    return step


def reason_against_fused(operator: str, shape: Any, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why an operator's decode step cannot be fused at this shape, device and dtype; None where it can."""
    if operator not in FILES:
        return f"no kernel of ours decodes {operator}"
    if reason := reason_against_kernels(device, dtype):
        return reason
    return fused(operator).refuses(shape)


def reason_against_kernels(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why none of our kernels can be used on this device in this dtype; None where they can."""
    if reason := refuses_kernels(device, dtype):
        return reason
    set_up_triton()
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return str(error)
    return None


def reason_against_layer(layer: Layer, device: torch.device, dtype: torch.dtype) -> str | None:
    """The same as `reason_against_fused` for a layer, which may normalize after its operator."""
    if layer.norm_position != "before":
        return "the kernels normalize before the operator, this layer does it after"
    return reason_against_fused(layer.operator, layer.shape, device, dtype)
