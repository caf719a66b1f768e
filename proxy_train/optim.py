"""Optimizer groups and the learning rate's schedule."""

import math
from typing import Any

import torch
from torch import nn

from operators.model import HybridLM
from operators.operator import OperatorModule

FLOOR = 0.1  # the share of the learning rate that is left at the last step


def parameter_groups(model: HybridLM, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: the matrices that operators declare and an untied head decay; everything else (embeddings, meta tokens, normalizations,
    biases, convolutions, decay rates) does not. Each parameter is in exactly one."""
    decayed: set[nn.Parameter] = set()
    for module in model.modules():
        if isinstance(module, OperatorModule):
            decayed.update(module.get_parameter(f"{name}.weight") for name in (*module.reads, *module.writes))
    if model.head is not None:
        decayed.update(model.head.parameters())
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p in decayed], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p not in decayed], "weight_decay": 0.0},
    ]


def build_optimizer(model: HybridLM, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) over `parameter_groups`, one kernel for all tensors."""
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=learning_rate, betas=(0.9, 0.95), fused=True)


def schedule(step: int, *, steps: int, warmup_fraction: float) -> float:
    """The share of the learning rate at `step` of `steps` (from 0): a line up to 1 over the warm-up, then a cosine down to FLOOR."""
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * progress)) / 2
