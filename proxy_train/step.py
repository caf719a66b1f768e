"""One optimization step: as PyTorch runs it, and on a GPU replayed from a CUDA graph of the whole of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from operators.base.errors import flat
from operators.base.graph import captured
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

    loss_of: called with the rows of one pass -> their mean loss, a scalar.
    batch: tensors [B, ...] of the shapes and types of every batch.
    rows: of one pass. A step's gradient is the mean over its passes.
    settled: whether all further steps run alike.
    execution: `graph`, `eager`, or `eager: ` and why no graph could be captured.
    """

    def __init__(
        self, loss_of: Callable[..., Tensor], batch: Sequence[Tensor], optimizer: Optimizer, *, rows: int
    ) -> None:
        self.optimizer, self.rows, self._loss_of = optimizer, rows, loss_of
        self._batch = [torch.zeros_like(each, device=optimizer.device) for each in batch]
        self._loss = torch.zeros((), device=optimizer.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager_steps_left = WARMUP_STEPS if optimizer.device.type == "cuda" else 0
        self.execution = "eager"

    @property
    def settled(self) -> bool:
        return self._eager_steps_left == 0

    def __call__(self, batch: Sequence[Tensor], share: float) -> Tensor:
        """Trains on a batch at `share` of the peak rate -> the loss before the step.

        The loss lies on the device, which may still compute it.

        batch: tensors of the shapes that the step was made for, on the CPU or on the device.
        """
        for held, given in zip(self._batch, batch, strict=True):
            moved = held.is_cuda and not given.is_cuda
            held.copy_(given.contiguous().pin_memory() if moved else given, non_blocking=moved)
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
        parts = len(self._batch[0]) // self.rows
        self._loss.zero_()
        passes = zip(*(each.split(self.rows) for each in self._batch), strict=True)
        for number, of_pass in enumerate(passes):
            loss = self._loss_of(*of_pass) / parts
            loss.backward()
            self._loss += loss.detach()
            self.optimizer.collect(first=number == 0)
        self.optimizer.step()

    def _capture(self) -> None:
        """Queues nothing: the graph's first replay is the next step."""
        device = self.optimizer.device
        torch.cuda.synchronize(device)
        try:
            graph = captured(
                self._run,
                device=device,
                warmups=0,  # the eager steps were the warm-up
                stream=torch.cuda.current_stream(device),
                # Other threads of the process, as Ray's, may talk to the device meanwhile.
                error_mode="thread_local",
            )
        except torch.OutOfMemoryError:
            raise
        # Libraries may wait for the device or allocate where a capture forbids it.
        except RuntimeError as error:
            self.execution = f"eager: no CUDA graph: {flat(error, at_most=200)}"
            for parameter in self.optimizer.masters:
                parameter.grad = None
            return
        self._graph, self.execution = graph, "graph"
