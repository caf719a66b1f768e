"""Measures latency, throughput, memory and energy of an architecture on a device, beside its exact costs.

Weights and tokens are random: values do not change the amount of work, but zeros change its speed. Two things
are timed:

- prefill: reading `context` tokens a row into an empty state, up to the choice of the next token. On a GPU it
  is a replay of its CUDA graph.
- decode: one step of one token a row, with a state that holds `context` tokens including that one. The step
  goes from the token to the (greedy) choice of the next one, which the next step reads.

Before each decode step the state is set back by one token, so that every step sees the same context:
attention overwrites its last slot, and recurrent state moves on.

On a CPU each step is timed by itself, at one pace (see `profiler.measuring.pace`).

On a GPU a step is a replay of its CUDA graph, and a sample holds several steps in a row. Setting the state
back is a kernel of about a microsecond, which is timed with them. A small model's step is timed in several
copies of the model (see `profiler.measuring.decoder_copies`).

Timing holds the device's exclusive lock, with the anchor model timed before and after. Building the model,
capturing its graphs and measuring its memory hold the shared lock, and give way to others in between: new
kernels take a minute to compile. Only the largest batch is allocated under the exclusive lock: it takes the
memory that others would need.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from operators.architecture import Architecture
from operators.base.errors import DeviceError
from operators.base.threads import torch_threads
from operators.cost import Cost, cost
from operators.model import HybridLM
from operators.vision.vision_language import VisionLanguage
from profiler.device.ceilings import DATASHEET_BYTES_PER_S, copy_bytes_per_s
from profiler.device.device import Device, open_device
from profiler.device.lock import shared
from profiler.device.memory import memory_errors
from profiler.measuring.anchor import Anchor
from profiler.measuring.capacity import largest_decoder, release
from profiler.measuring.conditions import unsteady, watched
from profiler.measuring.decode_energy import BURST_MS, decode_energy, unlike_energies
from profiler.measuring.decoder import Decoder, Prompt, random_model
from profiler.measuring.decoder_copies import copies, rewind, step_ms
from profiler.measuring.pace import Pace
from profiler.profile import (
    Conditions,
    LargestBatch,
    PointProfile,
    Profile,
    ProfileSettings,
    instability,
)
from profiler.timing import Timing, sample

# Short steps are gathered into samples of about this length (ms). That keeps fewer numbers, and a single
# interruption weighs less.
DECODE_SAMPLE_MS = 4.0


def measure(
    architecture: Architecture | VisionLanguage,
    settings: ProfileSettings,
    *,
    device: str = "cpu",
    backend: str = "auto",
    seed: int = 0,
    anchor: Anchor | None = None,
) -> Profile:
    """Builds the model and measures it in the device's dtype: float32 on a CPU, bfloat16 on a GPU.

    It takes the device's locks itself: the caller must hold none of them.

    architecture: what to measure; a model that sees has further figures, see `profiler.measuring.vision`
    settings: how to measure it
    device: name of the device, as for `open_device`
    backend: of the operators; `auto` chooses
    seed: of weights and tokens
    anchor: the anchor of this device, where the caller keeps one; None builds it

    Raises DeviceError where the device cannot be used.
    Raises BackendError where the backend cannot be used.
    Raises MemoryError, or torch.OutOfMemoryError on a GPU, where memory ran out. It names the batch size and
        the context.
    """
    opened = open_device(device, engines=True)
    if reason := settings.disagreement(device):
        raise DeviceError(f"device {device}: {reason}")
    if isinstance(architecture, VisionLanguage):
        from profiler.measuring.vision import measure_vision  # which measures the decoder as is done here

        return measure_vision(
            architecture, settings, measure, device=device, backend=backend, seed=seed, anchor=anchor
        )
    if settings.images:
        raise DeviceError(f"profile.images {settings.images}: expected 0 for a language model")
    if opened.engine:
        from profiler.engines.measure import measure_in_engine  # which measures as is done here

        return measure_in_engine(
            architecture, settings, device=opened, backend=backend, seed=seed, anchor=anchor
        )
    absent = _without_energy(opened) if settings.energy_seconds else {}
    with torch.inference_mode(), torch_threads(settings.threads), memory_errors():
        copied = copy_bytes_per_s(opened)
        arithmetic = cost(architecture, batch=1, context=1, dtype=opened.dtype)
        costs = {
            (batch, context): cost(architecture, batch=batch, context=context, dtype=opened.dtype)
            for context in settings.contexts
            for batch in settings.batch_sizes
        }
        with shared(opened.label) as give_way:
            anchor = anchor or Anchor(opened)
            _require_memory(costs, opened)
            together = arithmetic.param_bytes + sum(point.state_bytes for point in costs.values())
            models = [
                random_model(architecture, opened, backend=backend, seed=seed)
                for _ in range(copies(together, opened) if costs else 1)
            ]
            pool = torch.cuda.graph_pool_handle() if opened.torch_device.type == "cuda" else None
            sessions = [
                _session(models, batch, context, point, opened, give_way, seed=seed, pool=pool)
                for (batch, context), point in costs.items()
            ]
        pace = Pace(anchor)
        measurer = _Measurer(opened, settings, pace)
        points, conditions = watched(
            lambda: [measurer.point(session, with_energy=not absent) for session in sessions],
            anchor=anchor,
            attempts=settings.attempts,
            usual_ms=pace.usual_ms,
            device=opened,
            unstable=lambda point: (
                _on_cpu(opened) and unsteady(point, counts_prefill=not settings.brief_prefill)
            ),
        )
        sessions.clear()
        if opened.torch_device.type == "cuda":
            cache = torch.cuda.get_device_properties(opened.torch_device).L2_cache_size
            remarks = (*conditions.remarks, *warm_cache(points, cache), *unlike_energies(points))
            conditions = conditions.model_copy(update={"remarks": remarks})
        model = models[0]
        del models
        largest: tuple[LargestBatch, ...] = ()
        largest_conditions: Conditions | None = None
        if settings.largest_batch:
            largest, largest_conditions = watched(
                lambda: [measurer.largest(model, context, seed) for context in settings.contexts],
                anchor=anchor,
                attempts=settings.attempts,
                usual_ms=pace.usual_ms,
                device=opened,
                unstable=lambda found: _on_cpu(opened) and bool(instability(found.decode, "cpu")),
            )
    return Profile(
        device=opened.label,
        device_name=opened.name,
        dtype=str(opened.dtype).removeprefix("torch."),
        threads=settings.threads,
        contexts=settings.contexts,
        params=arithmetic.params,
        param_bytes=arithmetic.param_bytes,
        points=points,
        largest=largest,
        absent=absent,
        copy_bytes_per_s=copied,
        datasheet_bytes_per_s=DATASHEET_BYTES_PER_S.get(opened.name),
        conditions=conditions,
        largest_conditions=largest_conditions,
        usual_anchor_ms=pace.usual_ms,
        backends=model.backends,
        versions=opened.versions(),
        seed=seed,
    )


@dataclass(frozen=True)
class _Session:
    """A model that decodes one batch at one context, ready to be measured.

    decoders: one for each copy of the model
    prompt: the prompt that prefill reads
    cost: by arithmetic
    peak_memory_bytes: of one of the decoders, see PointProfile
    """

    decoders: list[Decoder]
    prompt: Prompt
    cost: Cost
    peak_memory_bytes: int


def _session(
    models: Sequence[HybridLM],
    batch: int,
    context: int,
    point: Cost,
    device: Device,
    give_way: Callable[[], float],
    *,
    seed: int,
    pool: Any,
) -> _Session:
    """Builds what is measured at one point.

    give_way: of the shared lock, called between steps that may compile kernels for long
    """
    random, architecture = torch.Generator().manual_seed(seed), models[0].architecture
    with memory_errors(_where(batch, context)):
        tokens = torch.randint(architecture.vocabulary, (batch, context), generator=random).to(
            device.torch_device
        )
        give_way()
        decoders = [Decoder(models[0], batch, context)]
        give_way()
        peak = _peak_memory(decoders[0], tokens, device)
        give_way()
        prompt = Prompt(decoders[0], tokens, pool=pool)
        decoders += [Decoder(model, batch, context) for model in models[1:]]
    return _Session(decoders, prompt, point, peak)


def _peak_memory(decoder: Decoder, prompt: Tensor, device: Device) -> int:
    def prefill_and_step() -> None:
        decoder.reset()
        decoder.prefill(prompt)
        rewind(decoder)
        # A graph's steps use memory that was allocated when it was captured, so that it would not be counted
        # again.
        decoder.step_eagerly()

    # Libraries allocate some memory once and keep it, such as the workspace of cuBLAS. It is not the model's.
    prefill_and_step()
    weights = sum(tensor.nbytes for tensor in (*decoder.model.parameters(), *decoder.model.buffers()))
    return weights + decoder.state.bytes + device.peak_memory(prefill_and_step)


@dataclass(frozen=True)
class _Measurer:
    """Measures on one device, by the same settings each time."""

    device: Device
    settings: ProfileSettings
    pace: Pace

    def point(self, session: _Session, *, with_energy: bool) -> PointProfile:
        decoder, (batch, context) = session.decoders[0], session.prompt.tokens.shape

        def prefill() -> float:
            decoder.reset()
            return self.device.timed(session.prompt.read)

        with memory_errors(_where(batch, context)):
            prefill_timing = sample(
                self.pace.beside(prefill),
                settings=self.settings.of_prefill(),
                lasting=_on_cpu(self.device),
            )
            decode_timing = self._decode(session.decoders)
            energy = None
            if self.settings.energy_seconds and with_energy:
                steps = ceil(BURST_MS / decode_timing.median_ms)
                energy = decode_energy(
                    lambda: _steps(decoder, steps, self.device),
                    device=self.device,
                    seconds=self.settings.energy_seconds,
                    tokens=steps * batch,
                )
        return PointProfile(
            batch=batch,
            context=context,
            prefill=prefill_timing,
            decode=decode_timing,
            peak_memory_bytes=session.peak_memory_bytes,
            kv_bytes=session.cost.kv_bytes,
            recurrent_bytes=session.cost.recurrent_bytes,
            decode_bytes=session.cost.decode_bytes,
            energy=energy,
        )

    def largest(self, model: HybridLM, context: int, seed: int) -> LargestBatch:
        with memory_errors(f"largest batch at context {context}"):
            decoder = largest_decoder(model, context, self.device, seed=seed)
            batch, decode = decoder.tokens.shape[0], self._decode([decoder])
        del decoder
        release(self.device)
        return LargestBatch(context=context, batch=batch, decode=decode)

    def _decode(self, decoders: Sequence[Decoder]) -> Timing:
        def steps(count: int) -> float:
            return step_ms(decoders, self.device, count=count)

        count = ceil(DECODE_SAMPLE_MS / len(decoders) / min(steps(1) for _ in range(3)))
        return sample(
            self.pace.beside(lambda: steps(count)),
            settings=self.settings,
            runs=count * len(decoders),
            lasting=_on_cpu(self.device),
        )


def _on_cpu(device: Device) -> bool:
    return device.torch_device.type == "cpu"


def _steps(decoder: Decoder, count: int, device: Device) -> None:
    for _ in range(count):
        rewind(decoder)
        decoder.step()
    device.synchronize()


def _without_energy(device: Device) -> dict[str, str]:
    try:
        device.energy_j()
    except DeviceError as error:
        return dict.fromkeys(("energy_j_per_token", "power_w"), str(error))
    return {}


def warm_cache(points: Sequence[PointProfile], cache_bytes: int) -> tuple[str, ...]:
    """A note for each point whose steps read from the GPU's L2 cache what the step before left there.

    Nothing empties the cache between steps: one that moves more than it holds reads from memory.
    """
    return tuple(
        f"L2: warm at {_where(point.batch, point.context)}, where a decode step moves "
        f"{point.decode_bytes / 1e6:.3g} MB and the cache holds {cache_bytes / 1e6:.3g} MB"
        for point in points
        if point.decode_bytes <= cache_bytes
    )


def _require_memory(costs: Mapping[tuple[int, int], Cost], device: Device) -> None:
    """Raises MemoryError where weights and states alone need more memory than is free.

    On a CPU the kernel would kill the process instead.

    costs: by batch size and context, in the order in which they are allocated
    """
    states, free = 0, device.free_memory()
    for (batch, context), point in costs.items():
        states += point.state_bytes
        if states + point.param_bytes > free:
            raise MemoryError(
                f"{_where(batch, context)}: weights ({point.param_bytes / 1e9:.3g} GB) and states "
                f"({states / 1e9:.3g} GB, those of the batch sizes and contexts before it included) "
                f"need more than the {free / 1e9:.3g} GB that are free"
            )


def _where(batch: int, context: int) -> str:
    return f"batch {batch}, context {context}"
