"""The process of `profiler.engines.llama_cpp`, in which llama.cpp runs.

Its command: python -m profiler.engines.llama_cpp_process SOCKET PARENT

llama.cpp offers its server here, without a network between. It tells the time of each decode step by its own
clock. A batch is as many requests at once: steps are counted while all of them are decoding.
"""

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

from operators.base.errors import DeviceError, FrontrunnerError, flat
from profiler.engines.llama_cpp import EnginePoint, EngineProfile
from profiler.process.child_process import settle_in
from profiler.profile import ProfileSettings
from profiler.timing import sample

STEPS = 64  # of a request: enough for one to be worth its prefill, and few beside most contexts
IDS = 32  # prompts have ids below this, which every vocabulary has


@dataclass
class Reply:
    """What one request was answered.

    arrived: when each token came (s)
    decoded_ms: how long decoding had taken until then, by the clock of llama.cpp
    """

    arrived: list[float] = field(default_factory=list)
    decoded_ms: list[float] = field(default_factory=list)


def main(socket: int, parent: int) -> None:
    """Serves one request."""
    settle_in(parent)
    with Connection(socket) as connection:
        path, settings = connection.recv()
        try:
            connection.send(_measured(path, settings))
        except FrontrunnerError as error:
            connection.send(error)


def _measured(path: str, settings: ProfileSettings) -> EngineProfile:
    points = [
        _point(path, settings, batch=batch, context=context)
        for context in settings.contexts
        for batch in settings.batch_sizes
    ]
    return EngineProfile(
        engine=f"llama.cpp (xllamacpp {version('xllamacpp')})",
        threads=settings.threads,
        points=tuple(points),
    )


def _point(path: str, settings: ProfileSettings, *, batch: int, context: int) -> EnginePoint:
    gc.collect()
    before = _memory("VmRSS")
    # 5 sets the highest resident memory back to the present one.
    Path("/proc/self/clear_refs").write_text("5")
    server = _server(path, batch=batch, context=context, threads=settings.threads)
    with ThreadPoolExecutor(batch) as pool:

        def replies(tokens: int, steps: int) -> tuple[float, list[Reply]]:
            begin = perf_counter()
            asked = [pool.submit(_reply, server, row, tokens, steps) for row in range(batch)]
            return begin, [each.result() for each in asked]

        def prefill_ms() -> float:
            begin, rows = replies(context, 1)
            return (max(row.arrived[0] for row in rows) - begin) * 1e3

        def steps_ms() -> Iterator[float]:
            while True:
                yield from _together(replies(max(1, context - STEPS // 2), STEPS)[1])

        steps = steps_ms()
        prefill = sample(prefill_ms, settings=settings, lasting=True)
        decode = sample(lambda: next(steps), settings=settings, lasting=True)
    peak = _memory("VmHWM")
    return EnginePoint(
        batch=batch, context=context, prefill=prefill, decode=decode, memory_bytes=max(0, peak - before)
    )


def _server(path: str, *, batch: int, context: int, threads: int) -> Any:
    """The engine with a model. Raises DeviceError."""
    try:
        import xllamacpp
    except ImportError as error:
        raise DeviceError(
            f"llama.cpp: needs the package xllamacpp (`pip install xllamacpp`): {error}"
        ) from None
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel = batch
    params.n_ctx = batch * (context + STEPS)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.fit_params = False  # it would make the context shorter where memory is scarce
    params.cache_prompt = False
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise DeviceError(f"{path}: llama.cpp does not load it: {error}") from None


def _reply(server: Any, row: int, tokens: int, steps: int) -> Reply:
    """Reads a prompt of its own for each row, and decodes this many tokens after it. Raises DeviceError."""
    reply, errors = Reply(), []

    def heard(chunk: dict[str, Any]) -> bool:
        if "error" in chunk:
            errors.append(chunk["error"])
        elif "timings" in chunk and len(reply.arrived) < steps:
            reply.arrived.append(perf_counter())
            reply.decoded_ms.append(chunk["timings"]["predicted_ms"])
        return False  # which asks for more

    prompt = [(7 * place + row) % IDS for place in range(tokens)]
    request = {"prompt": prompt, "n_predict": steps, "ignore_eos": True, "cache_prompt": False}
    request |= {"temperature": 0.0, "top_k": 1, "samplers": ["top_k"]}
    server.handle_completions({**request, "stream": True, "timings_per_token": True}, heard)
    if errors or len(reply.arrived) < steps:
        why = flat(errors[0] if errors else f"{len(reply.arrived)} of {steps} tokens came")
        raise DeviceError(f"llama.cpp does not read {tokens} tokens and decode {steps}: {why:.200}")
    return reply


def _together(rows: list[Reply]) -> list[float]:
    """The times of the first row's steps while every row was decoding (ms)."""
    begin, end = max(row.arrived[0] for row in rows), min(row.arrived[-1] for row in rows)
    first = rows[0]
    numbered = range(2, len(first.arrived))  # the first step begins with the end of the prefill
    return [
        first.decoded_ms[n] - first.decoded_ms[n - 1]
        for n in numbered
        if begin <= first.arrived[n - 1] and first.arrived[n] <= end
    ]


def _memory(name: str) -> int:
    """A line of /proc/self/status (bytes)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
