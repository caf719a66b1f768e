"""The process of `profiler.engines.llama_cpp`, in which llama.cpp runs.

Its command: python -m profiler.engines.llama_cpp_process SOCKET PARENT

It opens one GGUF file after the other, and times prompts and decode steps when it is asked to.

llama.cpp offers its server here, without a network between. It tells the time of each decode step by its own
clock. A batch is as many requests at once: steps are counted while all of them are decoding. PyTorch is not
imported: its threads and its memory would be measured with the engine's.
"""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from operators.base.errors import BackendError, DeviceError, FrontrunnerError, flat
from profiler.engines.llama_cpp_messages import Decoding, Elapsed, Opening, Reading
from profiler.process.child_process import settle_in

IDS = 32  # prompts have ids below this, which every vocabulary has


@dataclass
class Reply:
    """What one request was answered.

    arrived: when each token came (s)
    decoded_ms: how long decoding had taken until then, by the clock of llama.cpp
    """

    arrived: list[float] = field(default_factory=list)
    decoded_ms: list[float] = field(default_factory=list)


class Loaded:
    """A file in the engine, after its first use.

    memory_bytes: by how much that raised the resident memory at most

    Raises DeviceError without the engine, BackendError for a file that it refuses.
    """

    def __init__(self, opening: Opening) -> None:
        gc.collect()
        before = _memory("VmRSS")
        # 5 sets the highest resident memory back to the present one.
        Path("/proc/self/clear_refs").write_text("5")
        self._opening, self._server = opening, _server(opening)
        self._pool = ThreadPoolExecutor(opening.batch)
        self.read()
        self.decode()
        self.memory_bytes = max(0, _memory("VmHWM") - before)

    def read(self) -> Elapsed:
        begin, cpu = perf_counter(), process_time()
        rows = self._replies(self._opening.context, 1)
        ms = (max(row.arrived[0] for row in rows) - begin) * 1e3
        return Elapsed(ms, 0, process_time() - cpu, perf_counter() - begin)

    def decode(self) -> Elapsed:
        begin, cpu = perf_counter(), process_time()
        steps = together(self._replies(self._opening.prompt, self._opening.steps))
        if not steps:
            raise BackendError(f"llama.cpp does not decode {self._opening.batch} rows at the same time")
        return Elapsed(median(steps), len(steps), process_time() - cpu, perf_counter() - begin)

    def _replies(self, tokens: int, steps: int) -> list[Reply]:
        rows = range(self._opening.batch)
        asked = [self._pool.submit(_reply, self._server, row, tokens, steps) for row in rows]
        return [each.result() for each in asked]


def main(socket: int, parent: int) -> None:
    """Serves requests until the other end is closed."""
    settle_in(parent)
    loaded: list[Loaded] = []
    with Connection(socket) as connection, suppress(EOFError, BrokenPipeError):
        while True:
            try:
                connection.send(_served(connection.recv(), loaded))
            except FrontrunnerError as error:
                connection.send(error)


def _served(request: Opening | Reading | Decoding, loaded: list[Loaded]) -> int | Elapsed:
    if isinstance(request, Opening):
        if not loaded:
            Loaded(request)  # libraries allocate some memory once and keep it: it is not the model's
        loaded.append(Loaded(request))
        return loaded[-1].memory_bytes
    file = loaded[request.number]
    return file.read() if isinstance(request, Reading) else file.decode()


def _server(opening: Opening) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise DeviceError(
            f"llama.cpp: needs the package xllamacpp (`pip install xllamacpp`): {error}"
        ) from None
    params = xllamacpp.CommonParams()
    params.model.path = opening.path
    params.n_parallel = opening.batch
    params.n_ctx = opening.batch * (max(opening.context, opening.prompt + opening.steps) + 1)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = opening.threads
    params.fit_params = False  # it would make the context shorter where memory is scarce
    params.cache_prompt = False
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise BackendError(f"{opening.path}: llama.cpp does not load it: {flat(error)}") from None


def _reply(server: Any, row: int, tokens: int, steps: int) -> Reply:
    """Reads a prompt of its own for each row, and decodes this many tokens after it. Raises BackendError."""
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
        raise BackendError(f"llama.cpp does not read {tokens} tokens and decode {steps}: {why:.200}")
    return reply


def together(rows: list[Reply]) -> list[float]:
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
