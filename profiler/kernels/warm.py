"""Compiles and tunes kernels before they are needed, for given operators and shapes, in parallel processes.

Every process leaves its binaries and tuning results in one folder
(`operators.kernels.libraries.cache_folder`), where later processes find them. First every process compiles:
each kernel once, whichever job comes to it first. Then jobs run, which chooses the fastest configurations: as
many as it takes to meet every kernel and every choice. Jobs wait for the device's memory, and a job that ran
out of it is made again, alone.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from operators.architecture import Architecture
from profiler.kernels.prepare import (
    Compiled,
    Job,
    Warmed,
    Workload,
    begin,
    compile_kernels,
    mark,
    prepare,
    run,
)
from profiler.kernels.room import Room


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


def warm(
    work: Sequence[Job],
    *,
    processes: int | None = None,
    on_compiled: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Warmed]:
    """Prepares every job in fresh processes, and gives each outcome as it is ready.

    processes: how many at once; None is one a core
    on_compiled: hears how many jobs have compiled their kernels, of how many
    """
    if not work:
        return
    count = min(len(work), processes or os.cpu_count() or 1)
    short_of_memory: list[Job] = []
    with tempfile.TemporaryDirectory(prefix="frontrunner-claims-") as claims, _processes(count) as pool:
        compiling = {pool.submit(compile_kernels, job, Path(claims)): job for job in work}
        compiled: list[tuple[Job, Compiled]] = []
        for number, done in enumerate(as_completed(compiling), 1):
            compiled.append((compiling[done], done.result()))
            on_compiled(number, len(work))
        sharing: list[Compiled] = []
        running: dict[Future[Warmed], tuple[Job, Compiled]] = {}
        met: set[str] = set()
        # Those that need most come first, so that few meet everything.
        for job, kernels in sorted(compiled, key=lambda each: -len(each[1].needs)):
            if kernels.warmed.out_of_memory:
                short_of_memory.append(job)
            elif kernels.warmed.problem or kernels.ready:
                yield kernels.warmed
            elif kernels.needs and kernels.needs <= met:
                sharing.append(kernels)
            else:
                met |= kernels.needs
                running[pool.submit(run, job)] = job, kernels
        for ended in as_completed(running):
            (job, kernels), ran = running[ended], ended.result()
            if ran.out_of_memory:
                short_of_memory.append(job)
                continue
            mark(kernels, ran)
            before = kernels.warmed
            yield replace(ran, seconds=before.seconds + ran.seconds, start_s=before.start_s + ran.start_s)
        for kernels in sharing:
            mark(kernels, kernels.warmed)
            yield replace(kernels.warmed, shares=True)
    if short_of_memory:
        with _processes(1) as pool:
            for job in short_of_memory:
                yield pool.submit(prepare, job).result()


def _processes(count: int) -> ProcessPoolExecutor:
    # A forked process could not use the GPU.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        count, mp_context=context, initializer=begin, initargs=(os.getpid(), Room(context, count))
    )
