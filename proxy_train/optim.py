"""Optimizer groups and the learning rate's schedule."""

import math
from typing import Any

import torch

from operators.model import HybridLM
from operators.operator import OperatorModule

# Found on runs of 150 steps at width 128, where one rate for all and a momentum of 0.9 end 0.3 nats per token higher.
EMBEDDING_RATE = 8.0  # an embedding's row gets a gradient only when its token occurs
BETAS = (0.8, 0.95)  # a run of 100 steps has no time for a long memory

FLOOR = 0.1  # the share of the learning rate that is left at the last step


def parameter_groups(model: HybridLM, *, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Three groups, each parameter in exactly one; `peak` is a group's own learning rate.

    The matrices that operators declare: learning_rate, and they alone decay. Embeddings, meta tokens and head: EMBEDDING_RATE times
    learning_rate. Everything else (normalizations, biases, convolutions, decay rates): learning_rate.
    """
    operators = [module for module in model.modules() if isinstance(module, OperatorModule)]
    matrices = [module.get_parameter(f"{name}.weight") for module in operators for name in (*module.reads, *module.writes)]
    tables = [model.embedding.weight]
    if model.meta is not None:
        tables.append(model.meta)
    if model.head is not None:
        tables.append(model.head.weight)
    grouped = {*matrices, *tables}
    rest = [parameter for parameter in model.parameters() if parameter not in grouped]
    return [
        {"params": matrices, "peak": learning_rate, "weight_decay": weight_decay},
        {"params": tables, "peak": learning_rate * EMBEDDING_RATE, "weight_decay": 0.0},
        {"params": rest, "peak": learning_rate, "weight_decay": 0.0},
    ]


def build_optimizer(model: HybridLM, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) over `parameter_groups`, to be given its rate by `set_rate`."""
    groups = parameter_groups(model, learning_rate=learning_rate, weight_decay=weight_decay)
    return torch.optim.AdamW(groups, betas=BETAS, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Gives every group that share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def schedule(step: int, *, steps: int, warmup_fraction: float) -> float:
    """The share of the learning rate at `step` of `steps` (from 0): a line up to 1 over the warm-up, then a cosine down to FLOOR."""
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * progress)) / 2
