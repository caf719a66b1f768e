"""Compiles and tunes kernels before they are needed, for given operators and shapes, in parallel processes.

Every process leaves its binaries and tuning results in one folder
(`operators.kernels.libraries.cache_folder`), where later processes find them.
"""

import hashlib
import importlib
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from operators import registry
from operators.architecture import Architecture, Layer
from operators.backends import fused_step, resolve
from operators.base.errors import FrontrunnerError, flat
from operators.base.value import Value
from operators.decoding.fused import TRITON
from operators.kernels import libraries as kernel_libraries
from operators.kernels.compile_ahead import compiling_ahead
from operators.layers.residual import ResidualLayer, add_norm_reference
from profiler.device.device import Device, open_device

Sizes = Annotated[tuple[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], ...], Field()]


class Workload(Value):
    """What an operator will be asked for.

    training: pairs of batch size and tokens
    decoding: pairs of batch size and tokens; each is a prefill and steps
    """

    training: Sizes = ((8, 1024),)
    decoding: Sizes = ((1, 1024), (8, 1024))


@dataclass(frozen=True)
class Job:
    """One operator at one shape, in an architecture that has no other layer."""

    architecture: Architecture
    workload: Workload
    device: str
    backend: str = "auto"

    @property
    def layer(self) -> Layer:
        return self.architecture.layers[0]


@dataclass(frozen=True)
class Warmed:
    """The outcome of preparing one operator at one shape.

    operator: name of the operator
    shape: its shape, as text
    backend: the backend that was chosen
    seconds: how long the preparation took, without start_s (s)
    start_s: how long importing libraries and opening the device took (s); little in a process that had done
        so
    problem: why the operator could not be prepared; empty where it could
    """

    operator: str
    shape: str
    backend: str
    seconds: float
    start_s: float
    problem: str = ""


def jobs(
    architectures: Iterable[Architecture], workload: Workload, device: str, backend: str = "auto"
) -> list[Job]:
    """One job for every shape of an operator; the same shape at two widths needs the same kernels."""
    found: dict[tuple[str, str], Job] = {}
    for architecture in architectures:
        for layer in architecture.layers:
            alone = architecture.model_copy(update={"layers": (layer,), "vocabulary": 2, "name": ""})
            found.setdefault(
                (layer.operator, layer.shape.model_dump_json()), Job(alone, workload, device, backend)
            )
    return list(found.values())


def warm(work: Sequence[Job], *, processes: int | None = None) -> Iterator[Warmed]:
    """Prepares every job in fresh processes, and gives each outcome as it is ready.

    processes: how many at once; None is one a core
    """
    if not work:
        return
    # A forked process could not use the GPU.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(work), processes or os.cpu_count() or 1), mp_context=context) as pool:
        for done in as_completed([pool.submit(prepare, job) for job in work]):
            yield done.result()


def prepare(job: Job, *, compile_only: bool = False) -> Warmed:
    """Runs the operator once for each size of its workload: forward, backward, and in decode steps.

    compile_only: compiles what a GPU would run, in every configuration, and runs nothing
    """
    began, layer = time.perf_counter(), job.layer
    chosen, problem, start_s = "", "", 0.0
    try:
        device = open_device(job.device)
        if device.torch_device.type == "cuda":
            # Libraries' custom operators import this at their first call.
            importlib.import_module("torch._dynamo")
        resolved = resolve(layer.operator, job.backend, layer.shape, device.torch_device, device.dtype)
        fused = fused_step(layer, job.backend, device.torch_device, device.dtype)
        chosen = resolved.name if fused is None else f"{resolved.name}+{TRITON}"
        square = torch.zeros(64, 64, device=device.torch_device, dtype=device.dtype, requires_grad=True)
        # This loads the matrix library and starts autograd's thread.
        (square @ square).sum().backward()
        device.synchronize()
        start_s = time.perf_counter() - began
        module = registry.get(layer.operator).build(job.architecture, layer.shape, resolved.kernels)
        residual = ResidualLayer(
            layer,
            module,
            job.architecture.width,
            job.architecture.norm_eps,
            add_norm=add_norm_reference,
            fused=fused,
        ).to(device.torch_device, device.dtype)
        module.lay_together()
        marker = _marker(job, device)
        if marker is not None and (compile_only or not marker.exists()):
            with compiling_ahead():
                _exercise(residual, job, device)
        if not compile_only:
            _exercise(residual, job, device)
            device.synchronize()
            if marker is not None:
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.touch()
    # Kernel libraries refuse with any of these what they cannot do.
    except (FrontrunnerError, RuntimeError, AssertionError, ValueError, OSError) as error:
        problem = flat(f"{type(error).__name__}: {error}", at_most=300)
    shape = " ".join(f"{key}={value}" for key, value in layer.shape.model_dump().items())
    return Warmed(layer.operator, shape, chosen, time.perf_counter() - began - start_s, start_s, problem)


def _marker(job: Job, device: Device) -> Path | None:
    """The file beside a GPU's kernels that shows that a job was prepared; None on a CPU.

    Going through all kernels ahead takes longer than running them.
    """
    if device.torch_device.type == "cpu":
        return None
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or kernel_libraries.cache_folder())
    digest = hashlib.sha256(
        repr((job.architecture, job.workload, job.backend, device.name, device.versions())).encode()
    ).hexdigest()
    return folder / "prepared" / digest[:32]


def _exercise(layer: ResidualLayer, job: Job, device: Device) -> None:
    """Everything that the workload asks of the operator, once."""
    module = layer.operator

    def random(batch: int, tokens: int, *, requires_grad: bool = False) -> Tensor:
        return torch.randn(
            batch,
            tokens,
            job.architecture.width,
            device=device.torch_device,
            dtype=device.dtype,
            requires_grad=requires_grad,
        )

    # Trainings are deterministic too, which takes other variants of kernels.
    with kernel_libraries.deterministic():
        for batch, tokens in job.workload.training:
            module(random(batch, tokens, requires_grad=True)).sum().backward()
    with torch.inference_mode():
        for batch, tokens in job.workload.decoding:
            specs = registry.get(job.layer.operator).state(job.layer.shape, batch, tokens + 1, device.dtype)
            if layer.fused is not None:
                specs = specs | layer.fused.counters(job.layer.shape, batch)
            state = {
                name: torch.zeros(spec.shape, dtype=spec.dtype, device=device.torch_device)
                for name, spec in specs.items()
            }
            position = torch.zeros(batch, dtype=torch.int64, device=device.torch_device)
            x = random(batch, tokens)
            module(x, state, position, 0)
            layer.step(x[:, 0].contiguous(), None, state, position + tokens)
