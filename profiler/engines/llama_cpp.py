"""Measures a GGUF file in llama.cpp on this machine's CPU.

The engine is the package xllamacpp, and runs in a process of its own: on a file that it cannot run,
llama.cpp may end the process.
"""

from pathlib import Path
from typing import Any

from operators.base.errors import DeadlineError
from operators.base.value import Value
from profiler.process.child_process import Child
from profiler.profile import ProfileSettings
from profiler.timing import Timing

# Before it ends the process, llama.cpp would ask a debugger where it is.
WITHOUT_DEBUGGER = {"GGML_NO_BACKTRACE": "1"}


class EnginePoint(Value):
    """The figures at one batch size and context.

    batch: rows decoded at once
    context: tokens a row
    prefill: times of reading the context, up to the choice of the next token
    decode: times of one decode step of the whole batch, with `context` tokens a row on average
    memory_bytes: by how much loading and running the model raised the process's resident memory: weights,
        state and temporaries
    """

    batch: int
    context: int
    prefill: Timing
    decode: Timing
    memory_bytes: int


class EngineProfile(Value):
    """A file in an engine.

    engine: its name and version, as in `llama.cpp (xllamacpp 2026.10.11549)`
    threads: of the engine
    points: one for each batch size at each context
    """

    engine: str
    threads: int
    points: tuple[EnginePoint, ...]


def measure_gguf(path: Path, settings: ProfileSettings, *, deadline_s: float = 600.0) -> EngineProfile:
    """Times prefill and decoding of a GGUF file, or of the first of its parts.

    The caller keeps other work off the CPU, as by its lock.

    path: the file. Its `context_length` may be shorter than the contexts.
    settings: batch sizes, contexts, threads, and when to stop sampling. Energy and the largest batch are not
        measured.
    deadline_s: how long all of it may take (s)

    Raises DeviceError where the engine is not installed or does not load the file.
    Raises CrashError, OutOfMemoryError or DeadlineError where the measurement did not end well.
    """
    child = Child("profiler.engines.llama_cpp_process", called="llama.cpp", environment=WITHOUT_DEBUGGER)
    try:
        child.connection.send((str(path.absolute()), settings))
        if not child.connection.poll(deadline_s):
            raise DeadlineError(f"{path}: not finished in llama.cpp after {deadline_s:g} s")
        answer: Any = child.connection.recv()
    except (EOFError, OSError):
        raise child.death(f"measuring {path}") from None
    finally:
        child.close()
    if isinstance(answer, Exception):
        raise answer
    profile: EngineProfile = answer
    return profile
