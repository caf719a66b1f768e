"""Measures an architecture in llama.cpp on this machine's CPU, through its GGUF file.

The engine is the package xllamacpp, and runs in a process of its own: on a file that it cannot run,
llama.cpp may end the process. Between its samples this process times the anchor model, as for all times on a
CPU (see `profiler.measuring.pace`).
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from operators.architecture import Architecture
from operators.base.errors import DeadlineError, FrontrunnerError
from operators.base.threads import torch_threads
from operators.cost import Cost
from operators.published.gguf_export.sizes import gguf_cost
from operators.published.gguf_export.writing import write_gguf
from profiler.device.ceilings import copy_bytes_per_s
from profiler.device.device import Device
from profiler.device.lock import shared
from profiler.engines.llama_cpp_messages import Decoding, Elapsed, Opening, Reading
from profiler.engines.sessions import STEPS, Session, profile_of, steps_around, without_what_is_ours
from profiler.measuring.anchor import Anchor
from profiler.measuring.decoder import random_model
from profiler.process.child_process import Child
from profiler.profile import QUANTIZATION, Profile, ProfileSettings

# Before it ends the process, llama.cpp would ask a debugger where it is.
WITHOUT_DEBUGGER = {"GGML_NO_BACKTRACE": "1"}
# Longer than any answer takes; callers have deadlines of their own (s).
ANSWER_S = 3600.0


# Tokens of all rows that llama.cpp reads at once. Rows that it reads first decode while it reads others.
TOGETHER = 2048
# Steps of the shortest kind in the time by which one row is asked for after the others.
BESIDE = 16


def measure_in_llama_cpp(
    architecture: Architecture,
    settings: ProfileSettings,
    *,
    device: Device,
    backend: str,
    seed: int,
    anchor: Anchor | None,
) -> Profile:
    """Measures an architecture through its exported file with random weights.

    Parameters and locks are those of `profiler.measuring.measure.measure`.

    Raises ArchitectureError where no GGUF model holds the architecture, MemoryError where its files need more
    memory than is free, and what `LlamaCpp` raises.
    """
    absent, dtype = without_what_is_ours(settings, backend, device), settings.quantization or QUANTIZATION
    points = [(batch, context) for context in settings.contexts for batch in settings.batch_sizes]
    costs = {
        (batch, context): gguf_cost(architecture, batch=batch, context=context, dtype=dtype)
        for batch, context in points
    }
    _require_memory(costs, device)
    with torch_threads(settings.threads), tempfile.TemporaryDirectory(prefix="frontrunner-") as folder:
        copy_bytes_per_s(device)  # which takes the lock that is held below
        with closing(LlamaCpp()) as engine:
            with shared(device.label), torch.inference_mode():
                anchor = anchor or Anchor(device)
                path = Path(folder) / "model.gguf"
                model = random_model(architecture, device, backend="reference", seed=seed)
                context = max(context + STEPS + more_steps(batch, context) for batch, context in points)
                write_gguf(architecture, model.state_dict(), None, path, dtype=dtype, context=context)
                del model
                sessions = [
                    engine.session(path, batch, context, costs[batch, context], threads=settings.threads)
                    for batch, context in points
                ]
            return profile_of(
                sessions,
                settings,
                device=device,
                anchor=anchor,
                params=sessions[0].cost.params,
                dtype=dtype,
                how={},
                absent=absent,
                seed=seed,
                core_share=engine.core_share,
            )


def _require_memory(costs: Mapping[tuple[int, int], Cost], device: Device) -> None:
    """Raises MemoryError where weights and states need more than is free; each point has its own."""
    needed, free = sum(cost.param_bytes + cost.state_bytes for cost in costs.values()), device.free_memory()
    if needed > free:
        raise MemoryError(
            f"weights and states of {len(costs)} batch sizes and contexts need {needed / 1e9:.3g} GB in "
            f"llama.cpp, {free / 1e9:.3g} GB are free"
        )


def more_steps(batch: int, context: int) -> int:
    """How many steps all rows but the last one make before it begins, and a few after its end."""
    return 0 if batch == 1 else BESIDE + -(-batch * context // TOGETHER)


class LlamaCpp:
    """llama.cpp in a process of its own. Close it.

    Its methods raise BackendError for a file that llama.cpp refuses, and CrashError, OutOfMemoryError or
    DeadlineError where its process did not answer.
    """

    def __init__(self) -> None:
        self._child = Child(
            "profiler.engines.llama_cpp_process", called="llama.cpp", environment=WITHOUT_DEBUGGER
        )
        self._count, self._threads = 0, 1
        self._cpu_s = self._wall_s = 0.0

    def session(self, path: Path, batch: int, context: int, cost: Cost, *, threads: int) -> Session:
        """A GGUF file, or the first of its parts, loaded for so many rows of so many tokens."""
        prompt, steps = steps_around(context)
        more = more_steps(batch, context)
        opening = Opening(str(path.absolute()), batch, context, prompt, steps, more, threads)
        memory: int = self._asked(opening, f"loading {path.name}")
        number, self._count, self._threads = self._count, self._count + 1, threads

        def decode() -> tuple[float, int]:
            elapsed = self._timed(Decoding(number), f"decoding {batch} rows at context {context}")
            return elapsed.ms, elapsed.steps

        def prefill_ms() -> float:
            return self._timed(Reading(number), f"reading {batch} rows of context {context}").ms

        return Session(batch, context, memory, cost, prefill_ms, decode)

    def core_share(self) -> Callable[[], float | None]:
        """As `profiler.measuring.conditions.core_share`, of the engine's process while it is timed."""
        self._cpu_s = self._wall_s = 0.0

        def share() -> float | None:
            known = self._threads == 1 and self._wall_s
            # Requests are answered by a thread beside the one that computes.
            return min(1.0, self._cpu_s / self._wall_s) if known else None

        return share

    def close(self) -> None:
        self._child.close()

    def _timed(self, request: Reading | Decoding, phase: str) -> Elapsed:
        elapsed: Elapsed = self._asked(request, phase)
        self._cpu_s, self._wall_s = self._cpu_s + elapsed.cpu_s, self._wall_s + elapsed.wall_s
        return elapsed

    def _asked(self, request: Opening | Reading | Decoding, phase: str) -> Any:
        try:
            self._child.connection.send(request)
            if not self._child.connection.poll(ANSWER_S):
                raise DeadlineError(f"llama.cpp: no answer in {ANSWER_S:g} s while {phase}")
            answer = self._child.connection.recv()
        except (EOFError, OSError):
            raise self._child.death(phase) from None
        if isinstance(answer, FrontrunnerError):
            raise answer
        return answer
