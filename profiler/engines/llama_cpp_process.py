"""The process of `profiler.engines.llama_cpp`, in which llama.cpp runs.

Its command: python -m profiler.engines.llama_cpp_process SOCKET PARENT

It opens one GGUF file after the other, and times prompts and decode steps when it is asked to.

llama.cpp offers its server here, without a network between. It tells the time of decoding by its own clock.
A batch is as many requests at once. PyTorch is not imported: its threads and its memory would be measured
with the engine's.
"""

import gc
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any, NamedTuple

from operators.base.errors import BackendError, DeviceError, FrontrunnerError, flat
from profiler.engines.llama_cpp_messages import Decoding, Elapsed, Opening, Reading
from profiler.process.child_process import settle_in

TRIES = 10  # for a batch whose rows decode at the same time
# The part of the last row's time in which another one may not decode. Answers come a moment late.
APART = 0.1
# How much later the last row is asked for: more than the requests of the others take (s).
LATER_S = 0.001
IDS = 32  # prompts have ids below this, which every vocabulary has


class Reply(NamedTuple):
    """What one request was answered.

    end: when (s)
    decoding_s: how long decoding took by the clock of llama.cpp, from the first token to the last (s)
    """

    end: float
    decoding_s: float

    @property
    def begin(self) -> float:
        """When the first token came (s)."""
        return self.end - self.decoding_s


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
        rows = range(self._opening.batch)
        ended = [each.result().end for each in [self._asked(row, self._opening.context, 1) for row in rows]]
        return Elapsed((max(ended) - begin) * 1e3, 0, process_time() - cpu, perf_counter() - begin)

    def decode(self) -> Elapsed:
        """Times the row that begins last. The others decode more tokens: all rows decode meanwhile."""
        begin, cpu = perf_counter(), process_time()
        prompt, steps = self._opening.prompt, self._opening.steps
        for _ in range(TRIES):
            others = [
                self._asked(row, prompt, steps + self._opening.more) for row in range(1, self._opening.batch)
            ]
            if others:
                sleep(LATER_S)
            last = self._asked(0, prompt, steps).result()
            if during(last, [each.result() for each in others]):
                ms = last.decoding_s * 1e3 / (steps - 1)  # the first token comes with the prompt
                return Elapsed(ms, steps - 1, process_time() - cpu, perf_counter() - begin)
        raise BackendError(
            f"llama.cpp did not decode {self._opening.batch} rows at the same time in {TRIES} tries"
        )

    def _asked(self, row: int, tokens: int, steps: int) -> Future[Reply]:
        return self._pool.submit(_reply, self._server, row, tokens, steps)


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
    longest = max(opening.context, opening.prompt + opening.steps + opening.more)
    params.n_ctx = opening.batch * (longest + 1)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = opening.threads
    params.fit_params = False  # it would make the context shorter where memory is scarce
    params.cache_prompt = False
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise BackendError(f"{opening.path}: llama.cpp does not load it: {flat(error)}") from None


def _reply(server: Any, row: int, tokens: int, steps: int) -> Reply:
    """Reads a prompt of its own for each row, and decodes this many tokens after it. Raises BackendError."""
    prompt = [(7 * place + row) % IDS for place in range(tokens)]
    request = {"prompt": prompt, "n_predict": steps, "ignore_eos": True, "cache_prompt": False}
    # One answer for all tokens: an answer for each would take a core's time while the next is computed.
    answer = server.handle_completions({**request, "temperature": 0.0, "top_k": 1, "samplers": ["top_k"]})
    end, timings = perf_counter(), answer.get("timings", {})
    if timings.get("predicted_n") != steps:
        why = flat(answer.get("error", f"{timings.get('predicted_n', 0)} of {steps} tokens came"))
        raise BackendError(f"llama.cpp does not read {tokens} tokens and decode {steps}: {why:.200}")
    return Reply(end, timings["predicted_ms"] / 1e3)


def during(last: Reply, others: Sequence[Reply]) -> bool:
    """Whether all other rows were decoding while the last one was, but for a small part of its time."""
    apart = max(
        (max(0.0, other.begin - last.begin) + max(0.0, last.end - other.end) for other in others), default=0.0
    )
    return apart <= APART * last.decoding_s


def _memory(name: str) -> int:
    """A line of /proc/self/status (bytes)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
