"""The loss of predicting the next token."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from operators.kernels.libraries import HALF, load
from operators.model import HybridLM

Loss = Callable[[HybridLM, Tensor, Tensor], Tensor]


def cross_entropy(model: HybridLM, tokens: Tensor, targets: Tensor) -> Tensor:
    """Mean over tokens and targets, both [B, T] -> nats per token, a scalar in float32."""
    return F.cross_entropy(model(tokens).flatten(0, 1).float(), targets.flatten())


def load_fused() -> Loss:
    """The same loss by flash-linear-attention, which never holds all logits [B, T, vocabulary] in memory.

    Raises ImportError where the library is missing.
    """
    library = load("fla.modules.fused_linear_cross_entropy")

    def fused(model: HybridLM, tokens: Tensor, targets: Tensor) -> Tensor:
        # The head's gradient is a sum of at most 8 parts of the tokens, so bfloat16 is precise enough. In
        # float32 its products would leave the fast matrix units.
        loss: Tensor = library.fused_linear_cross_entropy_loss(
            model.hidden(tokens).flatten(0, 1),
            targets.flatten(),
            model.head_weight(),
            accumulate_grad_in_fp32=False,
        )
        return loss

    return fused


def best_loss(device: torch.device, dtype: torch.dtype) -> Loss:
    """The fused loss where device, dtype and installed libraries allow it, else `cross_entropy`."""
    if device.type != "cuda" or dtype not in HALF:
        return cross_entropy
    try:
        return load_fused()
    except ImportError:
        return cross_entropy
