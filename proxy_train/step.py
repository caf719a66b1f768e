"""One optimization step: as PyTorch runs it, and on a GPU replayed from a CUDA graph of the whole of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from operators.base.errors import flat
from operators.base.graph import captured
from operators.model import HybridLM
from proxy_train.loss import best_loss
from proxy_train.optim import Optimizer

# Before capture, libraries compile and choose kernels and allocate workspaces. The first steps see that done.
WARMUP_STEPS = 3


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """On a GPU, what is queued inside goes to a stream of its own, which a capture needs.

    All of it is done when the block ends.
    """
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(stream):
        try:
            yield
        finally:
            stream.synchronize()


class Step:
    """Forward, backward and update on one batch after another, within `own_stream`.

    The first WARMUP_STEPS on a GPU run kernel by kernel; then a graph is captured, and replayed from then on.
    Proxies are small: launching their thousand kernels a step takes longer than running them. Where the
    capture fails steps go on as before.

    settled: whether all further steps run alike.
    execution: `graph`, `eager`, or `eager: ` and why no graph could be captured.
    """

    def __init__(
        self,
        model: HybridLM,
        optimizer: Optimizer,
        *,
        batch_size: int,
        micro_batch_size: int,
        sequence_length: int,
    ) -> None:
        self.model, self.optimizer, self.micro_batch_size = model, optimizer, micro_batch_size
        weight = model.embedding.weight
        self._device = weight.device
        self._loss_of = best_loss(weight.device, weight.dtype)
        self._inputs, self._targets = (
            torch.zeros(batch_size, sequence_length, dtype=torch.int64, device=weight.device)
            for _ in range(2)
        )
        self._loss = torch.zeros((), device=weight.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager_steps_left = WARMUP_STEPS if weight.is_cuda else 0
        self.execution = "eager"

    @property
    def settled(self) -> bool:
        return self._eager_steps_left == 0

    def __call__(self, inputs: Tensor, targets: Tensor, share: float) -> Tensor:
        """Trains on inputs and targets [B, T] at `share` of the peak rate -> the loss before the step.

        The loss lies on the device, which may still compute it.
        """
        for held, given in ((self._inputs, inputs), (self._targets, targets)):
            held.copy_(given.contiguous().pin_memory() if held.is_cuda else given, non_blocking=held.is_cuda)
        self.optimizer.set_rate(share)
        if self._graph is not None:
            self._graph.replay()
            return self._loss.clone()
        self._run()
        loss = self._loss.clone()
        if self._eager_steps_left:
            self._eager_steps_left -= 1
            if self.settled:
                self._capture()
        return loss

    def _run(self) -> None:
        parts = self._inputs.shape[0] // self.micro_batch_size
        self._loss.zero_()
        batch = zip(
            self._inputs.split(self.micro_batch_size), self._targets.split(self.micro_batch_size), strict=True
        )
        for number, (inputs, targets) in enumerate(batch):
            loss = self._loss_of(self.model, inputs, targets) / parts
            loss.backward()
            self._loss += loss.detach()
            self.optimizer.collect(first=number == 0)
        self.optimizer.step()

    def _capture(self) -> None:
        """Queues nothing: the graph's first replay is the next step."""
        torch.cuda.synchronize(self._device)
        try:
            graph = captured(
                self._run,
                device=self._device,
                warmups=0,  # the eager steps were the warm-up
                stream=torch.cuda.current_stream(self._device),
                # Other threads of the process, as Ray's, may talk to the device meanwhile.
                error_mode="thread_local",
            )
        except torch.OutOfMemoryError:
            raise
        # Libraries may wait for the device or allocate where a capture forbids it.
        except RuntimeError as error:
            self.execution = f"eager: no CUDA graph: {flat(error, at_most=200)}"
            for parameter in self.model.parameters():
                parameter.grad = None
            return
        self._graph, self.execution = graph, "graph"
