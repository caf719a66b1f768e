"""AdamW by PyTorch's function, without PyTorch's object.

The object (torch.optim.AdamW) imports torch._dynamo, which takes two to three seconds of each process that
trains. The function computes the same.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

EPSILON = 1e-8  # PyTorch's default


class AdamW:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) over groups of parameters.

    groups: each with `params`, `lr` (a number, or a tensor on the device of the parameters) and
        `weight_decay`. The caller may change `lr` between steps.
    betas: how much of the averages of the gradient and of its square a step keeps.
    fused: whether one kernel does a step; PyTorch decides otherwise.
    capturable: whether a CUDA graph may hold `step`.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        betas: tuple[float, float],
        fused: bool = False,
        capturable: bool = False,
    ) -> None:
        self.groups, self._betas, self._fused, self._capturable = list(groups), betas, fused, capturable
        self._states: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient, in place."""
        for group in self.groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self.state(parameter) for parameter in trained]
            adamw(
                trained,
                [parameter.grad for parameter in trained],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=self._fused or None,
                capturable=self._capturable,
                amsgrad=False,
                beta1=self._betas[0],
                beta2=self._betas[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=EPSILON,
                maximize=False,
            )

    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """A parameter's number of steps and its two averages, by PyTorch's names. They begin as zeros."""
        if parameter not in self._states:
            # Without the fused kernel, PyTorch reads the number of steps on the host.
            device = parameter.device if self._fused else torch.device("cpu")
            self._states[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return self._states[parameter]
