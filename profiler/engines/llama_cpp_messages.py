"""What `profiler.engines.llama_cpp` and its process send each other."""

from typing import NamedTuple


class Opening(NamedTuple):
    """Asks to load and use a file. The answer is by how much that raised the resident memory (bytes).

    batch: rows at once
    context: tokens a row that `Reading` reads
    prompt: tokens a row before `Decoding`
    steps: tokens that `Decoding` decodes in the row that it times
    more: how many more the other rows decode
    threads: of the engine
    """

    path: str
    batch: int
    context: int
    prompt: int
    steps: int
    more: int
    threads: int


class Reading(NamedTuple):
    """Asks to read a prompt in every row, with the file of that number."""

    number: int


class Decoding(NamedTuple):
    """Asks to decode tokens in every row, with the file of that number."""

    number: int


class Elapsed(NamedTuple):
    """The answer to `Reading` and `Decoding`.

    ms: the time of a prompt of the whole batch up to its first token, or the mean of decode steps (ms)
    steps: how many decode steps
    cpu_s: what all threads of the process computed meanwhile (s)
    wall_s: how long it took altogether (s)
    """

    ms: float
    steps: int
    cpu_s: float
    wall_s: float
