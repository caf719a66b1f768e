"""What preparing kernels does for one job: compile what it needs, or run it."""

import hashlib
import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
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
from operators.kernels.compile_ahead import Launches, compiling_ahead
from operators.layers.residual import ResidualLayer, add_norm_reference
from operators.model import HybridLM
from profiler.device.device import Device, open_device
from profiler.device.lock import shared
from profiler.measuring.decoder import random_model

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
    """What is prepared at once.

    architecture: has the operator at the shape as its only layer
    workload: what it will be asked for
    whole: whether to prepare a decode step of the whole architecture instead, with its head and the choice of
        the token
    """

    architecture: Architecture
    workload: Workload
    device: str
    backend: str = "auto"
    whole: bool = False

    @property
    def layer(self) -> Layer:
        return self.architecture.layers[0]


@dataclass(frozen=True)
class Warmed:
    """The outcome of preparing one operator at one shape.

    operator: name of the operator, or what is prepared besides operators
    shape: its shape, as text
    backend: the backend that was chosen
    seconds: how long the preparation took, without start_s (s)
    start_s: how long importing libraries and opening the device took (s); little in a process that had done
        so
    problem: why the operator could not be prepared; empty where it could
    out_of_memory: whether the device had too little memory for it
    shares: whether it was not run, as others chose the configurations of its kernels
    """

    operator: str
    shape: str
    backend: str
    seconds: float
    start_s: float
    problem: str = ""
    out_of_memory: bool = False
    shares: bool = False


@dataclass(frozen=True)
class Compiled:
    """What a job's kernels are, once they are compiled here or by another process.

    warmed: the outcome so far
    launches: what it launches
    marker: the file that is to show that the job was prepared; None on a CPU
    ready: whether it was prepared before
    """

    warmed: Warmed
    launches: Launches = field(default_factory=Launches)
    marker: Path | None = None
    ready: bool = False


@dataclass(frozen=True)
class _Built:
    """A job's layer, or its whole model, on its device."""

    device: Device
    module: ResidualLayer | HybridLM
    backend: str
    start_s: float


# Takes room for this many bytes before they are used, and gives it back after the block.
TakeRoom = Callable[[int], AbstractContextManager[None]]


def prepare(job: Job, *, compile_only: bool = False) -> Warmed:
    """Does all of a job in this process.

    compile_only: compiles what a GPU would run, in every configuration, and runs nothing
    """
    compiled = compile_kernels(job, again=compile_only)
    if compile_only or compiled.warmed.problem:
        return compiled.warmed
    ran = run(job)
    mark(compiled, ran)
    return ran


def compile_kernels(
    job: Job, claims: Path | None = None, *, again: bool = False, take_room: TakeRoom | None = None
) -> Compiled:
    """Compiles what the job's operator launches, and launches nothing. On a CPU there is nothing to compile.

    claims: see `operators.kernels.compile_ahead.compiling_ahead`
    again: also where the job was prepared before
    take_room: None for a process that has the device's memory to itself
    """
    launches: list[Launches] = []
    marker: list[Path] = []

    def work(built: _Built, exercise: Callable[[], None]) -> None:
        if built.device.torch_device.type == "cpu":
            return
        marker.append(_marker(job, built.device))
        if again or not marker[0].exists():
            # Processes are the parallel part: more threads would wait for Python's lock.
            threads = None if claims is None else 2
            with compiling_ahead(threads, claims=claims) as launched:
                exercise()
            launches.append(launched)

    warmed = _outcome(job, work, take_room)
    return Compiled(
        warmed,
        launches[0] if launches else Launches(),
        marker[0] if marker else None,
        ready=bool(marker) and not launches and not warmed.problem,
    )


def run(job: Job, *, take_room: TakeRoom | None = None) -> Warmed:
    """Runs the job's operator once for each size of its workload: forward, backward, and in decode steps.

    take_room: as for `compile_kernels`
    """

    def work(built: _Built, exercise: Callable[[], None]) -> None:
        exercise()
        built.device.synchronize()

    return _outcome(job, work, take_room)


def mark(compiled: Compiled, ran: Warmed) -> None:
    """Notes that a job was prepared, if it was."""
    if compiled.marker is not None and not ran.problem:
        compiled.marker.parent.mkdir(parents=True, exist_ok=True)
        compiled.marker.touch()


def _outcome(
    job: Job, work: Callable[[_Built, Callable[[], None]], None], take_room: TakeRoom | None
) -> Warmed:
    """Builds the job's layer, does the work, and says how that went."""
    began = time.perf_counter()
    backend, problem, start_s, out_of_memory = "", "", 0.0, False
    try:
        imported_s = _import_libraries(job)
        with shared(job.device):
            built = _build(job)
        backend, start_s = built.backend, imported_s + built.start_s
        work(built, lambda: _exercise(built, job, take_room))
    # Kernel libraries refuse with any of these what they cannot do.
    except (FrontrunnerError, RuntimeError, AssertionError, ValueError, OSError) as error:
        problem = flat(f"{type(error).__name__}: {error}", at_most=300)
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
    return replace(
        described(job, problem=problem),
        backend=backend,
        seconds=time.perf_counter() - began - start_s,
        start_s=start_s,
        out_of_memory=out_of_memory,
    )


def described(job: Job, *, problem: str) -> Warmed:
    """The outcome of a job that took no time."""
    if job.whole:
        vocabulary = job.architecture.vocabulary
        return Warmed(
            "head", f"width={job.architecture.width} vocabulary={vocabulary}", "", 0.0, 0.0, problem
        )
    shape = " ".join(f"{key}={value}" for key, value in job.layer.shape.model_dump().items())
    return Warmed(job.layer.operator, shape, "", 0.0, 0.0, problem)


def _import_libraries(job: Job) -> float:
    """Imports what a job on a GPU needs, and returns how long that took (s).

    It needs no GPU, so others may measure on it meanwhile. In a fresh process it takes ten seconds.
    """
    began, device = time.perf_counter(), open_device(job.device)
    if device.torch_device.type == "cuda":
        # Libraries' custom operators import this at their first call.
        importlib.import_module("torch._dynamo")
        resolve(job.layer.operator, job.backend, job.layer.shape, device.torch_device, device.dtype)
    return time.perf_counter() - began


def _build(job: Job) -> _Built:
    began, layer = time.perf_counter(), job.layer
    device = open_device(job.device)
    square = torch.zeros(64, 64, device=device.torch_device, dtype=device.dtype, requires_grad=True)
    # This loads the matrix library and starts autograd's thread.
    (square @ square).sum().backward()
    device.synchronize()
    start_s = time.perf_counter() - began
    if job.whole:
        model = random_model(job.architecture, device, backend=job.backend, seed=0)
        return _Built(device, model, "" if model.fused_head is None else TRITON, start_s)
    resolved = resolve(layer.operator, job.backend, layer.shape, device.torch_device, device.dtype)
    fused = fused_step(layer, job.backend, device.torch_device, device.dtype)
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
    backend = resolved.name if fused is None else f"{resolved.name}+{TRITON}"
    return _Built(device, residual, backend, start_s)


def _marker(job: Job, device: Device) -> Path:
    """The file beside a GPU's kernels that shows that a job was prepared.

    Without it each kernel would be looked up again, which takes longer than to run them.
    """
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or kernel_libraries.cache_folder())
    digest = hashlib.sha256(
        repr((job.architecture, job.workload, job.backend, device.name, device.versions())).encode()
    ).hexdigest()
    return folder / "prepared" / digest[:32]


def _exercise(built: _Built, job: Job, take_room: TakeRoom | None) -> None:
    """Everything that the workload asks for, once, the smallest first."""
    device, memory = built.device, _Memory(built.device, take_room)

    @contextmanager
    def on_device(kind: object, tokens: int) -> Iterator[None]:
        # A process that waits for memory must not hold the device: the process that has the memory may be
        # waiting for the device.
        with memory.taken(kind, tokens), shared(job.device):
            yield
            device.synchronize()

    if isinstance(built.module, HybridLM):
        model = built.module
        for batch, tokens in job.workload.decoding:
            with on_device(model, batch * tokens), torch.inference_mode():
                ids = torch.zeros(batch, dtype=torch.int64, device=device.torch_device)
                model.step(ids, model.allocate_state(batch, tokens), chosen=ids)
        return
    layer, module = built.module, built.module.operator

    def random(batch: int, tokens: int, *, requires_grad: bool = False) -> Tensor:
        return torch.randn(
            batch,
            tokens,
            job.architecture.width,
            device=device.torch_device,
            dtype=device.dtype,
            requires_grad=requires_grad,
        )

    def train(batch: int, tokens: int) -> None:
        module(random(batch, tokens, requires_grad=True)).sum().backward()

    @torch.inference_mode()
    def decode(batch: int, tokens: int) -> None:
        # As large as when it is measured: kernels depend on it.
        specs = registry.get(job.layer.operator).state(job.layer.shape, batch, tokens, device.dtype)
        if layer.fused is not None:
            specs = specs | layer.fused.counters(job.layer.shape, batch)
        state = {
            name: torch.zeros(spec.shape, dtype=spec.dtype, device=device.torch_device)
            for name, spec in specs.items()
        }
        position = torch.zeros(batch, dtype=torch.int64, device=device.torch_device)
        x = random(batch, tokens)
        module(x, state, position, 0)
        layer.step(x[:, 0].contiguous(), None, state, position + (tokens - 1))

    # Trainings are deterministic too, which takes other variants of kernels.
    with kernel_libraries.deterministic():
        for batch, tokens in sorted(job.workload.training, key=_count):
            with on_device(train, batch * tokens):
                train(batch, tokens)
    for batch, tokens in sorted(job.workload.decoding, key=_count):
        with on_device(decode, batch * tokens):
            decode(batch, tokens)


def _count(size: tuple[int, int]) -> int:
    batch, tokens = size
    return batch * tokens


class _Memory:
    """Takes room for work before it is done, by what the same work took with fewer tokens."""

    def __init__(self, device: Device, take_room: TakeRoom | None) -> None:
        self._device, self._take_room = device, take_room
        self._known: dict[object, float] = {}  # bytes of a token, by the kind of work

    @contextmanager
    def taken(self, kind: object, tokens: int) -> Iterator[None]:
        if self._take_room is None or self._device.torch_device.type == "cpu":
            yield
            return
        torch.cuda.reset_peak_memory_stats()
        with self._take_room(int(self._known[kind] * tokens) if kind in self._known else _UNKNOWN_BYTES):
            try:
                yield
            finally:
                self._device.synchronize()
                self._known[kind] = torch.cuda.max_memory_allocated() / tokens
                torch.cuda.empty_cache()


# Assumed for the first work of a kind, which has the fewest tokens.
_UNKNOWN_BYTES = 1 << 30
