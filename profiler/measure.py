"""Measures an architecture on a device: latency, throughput and memory of inference, beside its exact costs.

What is timed, with random weights and random tokens (values do not change the amount of work, but zeros do change its speed):

- prefill: one reading of `context` tokens a row into an empty state, up to the choice of the next one.
- decode: one step of a token a row with a state that holds `context` tokens, itself included, from the token to the choice of the next one
  (greedy), which the next step reads. Before each step the state is set back by one token, so that every step sees the same context:
  attention overwrites its last slot, recurrent state moves on. On a CPU each step is timed by itself. On a GPU a step is a replay of its
  CUDA graph, and several follow one another in a sample; setting the state back there, a kernel of about a microsecond, is timed with them.

Timing holds the device's exclusive lock; building the model, capturing its graphs and measuring its memory hold the shared one.
"""

from dataclasses import dataclass
from math import ceil
from time import perf_counter
from typing import Annotated, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from operators.architecture import Architecture
from operators.model import HybridLM
from operators.value import Value
from profiler.cost import cost
from profiler.decoder import Decoder, random_model
from profiler.device import Device, memory_errors, open_device, torch_threads
from profiler.lock import exclusive, shared
from profiler.timing import SamplingSettings, Timing, sample

# Short steps are gathered into samples of about this length: fewer numbers to keep, and less weight on a single interruption.
DECODE_SAMPLE_MS = 4.0


class Metric(NamedTuple):
    """A figure of a profile. maximize: more is better. per_batch: its key carries the batch size, as in `decode_ms@b1`."""

    unit: str
    maximize: bool
    per_batch: bool
    description: str


METRICS: dict[str, Metric] = {
    "params": Metric("parameters", maximize=False, per_batch=False, description="parameters, embeddings included, a tied head once"),
    "param_bytes": Metric("bytes", maximize=False, per_batch=False, description="bytes of the parameters"),
    "prefill_ms": Metric("ms", maximize=False, per_batch=True, description="time to read the context and give the first logits, median"),
    "decode_ms": Metric("ms", maximize=False, per_batch=True, description="time of one decode step of the whole batch, median"),
    "decode_tokens_per_s": Metric("tokens/s", maximize=True, per_batch=True, description="tokens decoded by the whole batch in a second"),
    "peak_memory_bytes": Metric("bytes", maximize=False, per_batch=True, description="weights, state and temporaries at their highest"),
    "state_bytes": Metric("bytes", maximize=False, per_batch=True, description="decode state: key-value caches and recurrent state"),
}


class ProfileSettings(SamplingSettings):
    """The `profile:` section of a run.

    batch_sizes: rows decoded at once, one set of figures each. context: tokens a row that prefill reads and that decode sees.
    threads: of PyTorch on the CPU. The rest: see SamplingSettings.
    """

    batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field(min_length=1)] = (1, 8)
    context: Annotated[int, Field(ge=1, le=100_000_000)] = 256
    threads: Annotated[int, Field(ge=1, le=4096)] = 1

    @model_validator(mode="after")
    def _distinct_batch_sizes(self) -> Self:
        if len(set(self.batch_sizes)) < len(self.batch_sizes):
            raise ValueError(f"expected batch_sizes without repetition, got {list(self.batch_sizes)}")
        return self


class BatchProfile(Value):
    """Figures at one batch size. peak_memory_bytes: weights + state + the most that a prefill and a decode step had allocated."""

    batch: int
    prefill: Timing
    decode: Timing
    decode_tokens_per_s: float
    peak_memory_bytes: int
    state_bytes: int


class Profile(Value):
    """Measured costs of one architecture on one device.

    lock_s: seconds for which the device was held exclusively. backends: which one each operator got.
    """

    device: str
    device_name: str
    dtype: str
    threads: int
    context: int
    params: int
    param_bytes: int
    batches: tuple[BatchProfile, ...]
    backends: dict[str, str]
    versions: dict[str, str]
    seed: int
    lock_s: float

    def metrics(self) -> dict[str, float]:
        """The figures by name as in METRICS, those per batch size with it behind: `decode_ms@b1`."""
        figures: dict[str, float] = {"params": self.params, "param_bytes": self.param_bytes}
        for batch in self.batches:
            values = {
                "prefill_ms": batch.prefill.median_ms,
                "decode_ms": batch.decode.median_ms,
                "decode_tokens_per_s": batch.decode_tokens_per_s,
                "peak_memory_bytes": batch.peak_memory_bytes,
                "state_bytes": batch.state_bytes,
            }
            figures.update({f"{name}@b{batch.batch}": value for name, value in values.items()})
        return figures


def measure(architecture: Architecture, settings: ProfileSettings, *, device: str = "cpu", backend: str = "auto", seed: int = 0) -> Profile:
    """Builds the model and measures it, in the device's dtype (float32 on a CPU, bfloat16 on a GPU), with weights and tokens from `seed`.

    Takes the device's locks itself: the caller must hold none of them. Raises DeviceError, BackendError, and where memory ran out
    MemoryError (CPU) or torch.OutOfMemoryError (GPU).
    """
    opened = open_device(device)
    with torch.inference_mode(), torch_threads(settings.threads), memory_errors():
        with shared(device):
            model = random_model(architecture, opened, backend=backend, seed=seed)
            sessions = [_session(model, batch, settings.context, opened, seed) for batch in settings.batch_sizes]
            peaks = [_peak_memory(session, opened) for session in sessions]
        with exclusive(device):
            started = perf_counter()
            batches = tuple(_measure_batch(*pair, opened, settings) for pair in zip(sessions, peaks, strict=True))
            lock_s = perf_counter() - started
    arithmetic = cost(architecture, batch=1, context=settings.context, dtype=opened.dtype)
    return Profile(
        device=opened.label,
        device_name=opened.name,
        dtype=str(opened.dtype).removeprefix("torch."),
        threads=settings.threads,
        context=settings.context,
        params=arithmetic.params,
        param_bytes=arithmetic.param_bytes,
        batches=batches,
        backends=model.backends,
        versions=opened.versions(),
        seed=seed,
        lock_s=lock_s,
    )


@dataclass(frozen=True)
class _Session:
    """A model decoding one batch: what is run to be measured."""

    decoder: Decoder
    prompt: Tensor

    def prefill(self) -> None:
        self.decoder.prefill(self.prompt)

    def rewind(self) -> None:
        """Sets the full state back by one token, so that the next step is at the end of the context again."""
        self.decoder.state.seek(self.decoder.state.capacity - 1)

    def step(self) -> None:
        self.decoder.step()


def _session(model: HybridLM, batch: int, context: int, device: Device, seed: int) -> _Session:
    random, vocabulary = torch.Generator().manual_seed(seed), model.architecture.vocabulary
    prompt = torch.randint(vocabulary, (batch, context), generator=random).to(device.torch_device)
    return _Session(Decoder(model, batch, context), prompt)


def _peak_memory(session: _Session, device: Device) -> int:
    decoder = session.decoder

    def prefill_and_step() -> None:
        decoder.reset()
        session.prefill()
        session.rewind()
        decoder.step_eagerly()  # what a graph's steps use was allocated when it was captured, and is not counted again

    prefill_and_step()  # what libraries allocate once and keep, as the workspace of cuBLAS, is not the model's
    weights = sum(tensor.nbytes for tensor in (*decoder.model.parameters(), *decoder.model.buffers()))
    return weights + decoder.state.bytes + device.peak_memory(prefill_and_step)


def _measure_batch(session: _Session, peak_memory_bytes: int, device: Device, settings: ProfileSettings) -> BatchProfile:
    def prefill() -> float:
        session.decoder.reset()
        return device.timed(session.prefill)

    def steps(count: int) -> float:
        return device.mean_time(session.step, before=session.rewind, count=count)

    prefill_timing = sample(prefill, settings=settings)
    count = ceil(DECODE_SAMPLE_MS / min(steps(1) for _ in range(3)))
    decode_timing = sample(lambda: steps(count), settings=settings)
    return BatchProfile(
        batch=session.prompt.shape[0],
        prefill=prefill_timing,
        decode=decode_timing,
        decode_tokens_per_s=session.prompt.shape[0] / decode_timing.median_ms * 1e3,
        peak_memory_bytes=peak_memory_bytes,
        state_bytes=session.decoder.state.bytes,
    )
