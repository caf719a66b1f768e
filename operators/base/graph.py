"""Capture of CUDA graphs: work that is launched once and then replayed as a whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def captured(
    run: Callable[[], Any],
    *,
    device: torch.device,
    warmups: int,
    prepare: Callable[[], Any] | None = None,
    stream: torch.cuda.Stream | None = None,
    pool: Any = None,
    generator: torch.Generator | None = None,
    error_mode: str = "global",
) -> torch.cuda.CUDAGraph:
    """A CUDA graph of `run`.

    Its kernels are recorded, not executed: the first replay executes them.

    run: launches kernels on tensors that stay where they are. The capture fails where `run` waits for the
        device.
    device: the GPU of those tensors
    warmups: how often `run` is executed before it is recorded. Libraries choose kernels and allocate
        workspaces in their first runs, which a capture forbids. 0 suits work that ran before, or that needs
        no library.
    prepare: called before each warm-up and once more before the capture, outside of it
    stream: the stream that records; None is a new one. It must not be the device's default stream.
    pool: memory for what `run` allocates, from `torch.cuda.graph_pool_handle`; None is memory of its own.
        Graphs that share a pool must never run at the same time.
    generator: random numbers that `run` draws; each replay then draws the next ones
    error_mode: which calls of other threads make the capture fail, see `torch.cuda.graph`

    Raises RuntimeError where something in `run` cannot be recorded.
    """
    with torch.cuda.device(device):
        recording, current = stream or torch.cuda.Stream(), torch.cuda.current_stream()
        recording.wait_stream(current)
        with torch.cuda.stream(recording):
            for _ in range(warmups):
                if prepare is not None:
                    prepare()
                run()
            if prepare is not None:
                prepare()
        current.wait_stream(recording)
        graph = torch.cuda.CUDAGraph()
        if generator is not None:
            graph.register_generator_state(generator)
        try:
            with (
                _own_workspaces(),
                torch.cuda.graph(graph, stream=recording, pool=pool, capture_error_mode=error_mode),
            ):
                run()
        except BaseException:
            for drawing in (torch.cuda.default_generators[torch.cuda.current_device()], generator):
                if drawing is not None:
                    _end_recording(drawing)
            raise
    return graph


@contextmanager
def _own_workspaces() -> Iterator[None]:
    """Inside, matrix products take their workspaces anew: within a capture, from the graph's own memory.

    Otherwise a graph would keep using the workspace of its warm-ups. Torch frees that one, for example
    whenever torch.compile captures a graph, and a replay then writes where nothing is (seen with 2.11).
    """
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()


def _end_recording(generator: torch.Generator) -> None:
    """Lets a generator draw again after a failed capture, from where it was.

    Torch ends a generator's recording only where the capture succeeds (seen with 2.11). Until then every draw
    outside of a capture raises, so that no later model on this device could be initialized.
    """
    fresh = torch.Generator(generator.device).manual_seed(generator.initial_seed())
    fresh.set_offset(generator.get_offset())
    generator.graphsafe_set_state(fresh.graphsafe_get_state())
