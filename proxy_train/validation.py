"""The loss of one batch of validation tokens after the other."""

import torch
from torch import Tensor, nn

from operators.base.graph import captured
from operators.model import HybridLM

# Batches that run kernel by kernel, before the rest is replayed: libraries choose kernels in the first one.
_EAGER_BATCHES = 2


class BatchLoss:
    """Called with inputs and targets [B, T] on the model's device -> the mean loss (nats per token), there.

    On a GPU the third batch of a shape is captured as a CUDA graph, which is replayed from then on. It runs
    the same kernels, and launching the hundreds of a small model takes longer than running them. Where the
    capture fails, batches go on as before. Used without gradients, while the weights stay where they are.
    """

    def __init__(self, model: HybridLM) -> None:
        self._model = model
        self._shape: torch.Size | None = None
        self._eager_left = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._held: list[Tensor] = []

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if inputs.shape != self._shape:
            self._shape, self._graph, self._held = inputs.shape, None, []
            self._eager_left = _EAGER_BATCHES if inputs.is_cuda else -1
        if self._eager_left == 0:
            self._capture(inputs, targets)
        if self._graph is None:
            self._eager_left -= 1
            return self._loss(inputs, targets)
        for held, given in zip(self._held, (inputs, targets), strict=False):
            held.copy_(given)
        self._graph.replay()
        return self._held[2].clone()

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self._model(inputs).flatten(0, 1).float(), targets.flatten())

    def _capture(self, inputs: Tensor, targets: Tensor) -> None:
        held = [inputs.clone(), targets.clone(), torch.zeros((), device=inputs.device)]
        try:
            self._graph = captured(
                lambda: held[2].copy_(self._loss(held[0], held[1])),
                device=inputs.device,
                warmups=0,  # the eager batches were the warm-up
                # Other threads of the process, as Ray's, may talk to the device meanwhile.
                error_mode="thread_local",
            )
        except torch.OutOfMemoryError:
            raise
        # Libraries may wait for the device or allocate where a capture forbids it.
        except RuntimeError:
            return
        self._held = held
