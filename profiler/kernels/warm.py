"""Compiles and tunes kernels before they are needed, for given operators and shapes, in parallel processes.

Every process leaves its binaries and tuning results in one folder
(`operators.kernels.libraries.cache_folder`), where later processes find them. First every process compiles:
each kernel once, whichever job comes to it first. Then jobs run: enough of them to meet every case in
which the fastest of several configurations is chosen, and all whose kernels do not compile, to learn why.
Jobs wait for the device's memory. A job that ran out of it is made again, alone.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import local
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from operators.architecture import Architecture
from operators.base.threads import usable_cores
from profiler.kernels.prepare import Compiled, Job, Warmed, Workload, mark
from profiler.kernels.preparer import Preparer
from profiler.kernels.room import GIVEN_OUT, Room

P = ParamSpec("P")
T = TypeVar("T")


def jobs(
    architectures: Iterable[Architecture], workload: Workload, device: str, backend: str = "auto"
) -> list[Job]:
    """One job for every shape of an operator at every width."""
    found: dict[tuple[str, str, int], Job] = {}
    for architecture in architectures:
        for layer in architecture.layers:
            alone = architecture.model_copy(update={"layers": (layer,), "vocabulary": 2, "name": ""})
            found.setdefault(
                (layer.operator, layer.shape.model_dump_json(), architecture.width),
                Job(alone, workload, device, backend),
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
    count = min(len(work), processes or len(usable_cores()))
    with tempfile.TemporaryDirectory(prefix="frontrunner-claims-") as claims, _pool(count) as asked:
        compiling = {asked(Preparer.compile, job, Path(claims)): job for job in work}
        compiled: list[tuple[Job, Compiled]] = []
        for number, done in enumerate(as_completed(compiling), 1):
            compiled.append((compiling[done], done.result()))
            on_compiled(number, len(work))
        short_of_memory: list[Job] = []
        sharing: list[Compiled] = []
        running: dict[Future[Warmed], tuple[Job, Compiled]] = {}
        failed = set().union(*(kernels.launches.failed for _, kernels in compiled))
        met: set[str] = set()
        # Those with most cases come first, so that few meet all of them.
        for job, kernels in sorted(compiled, key=lambda each: -len(each[1].launches.cases)):
            launches = kernels.launches
            if kernels.warmed.out_of_memory:
                short_of_memory.append(job)
            elif kernels.warmed.problem or kernels.ready:
                yield kernels.warmed
            elif launches.kernels and launches.cases <= met and not launches.kernels & failed:
                sharing.append(kernels)
            else:
                met |= launches.cases
                running[asked(Preparer.run, job)] = job, kernels
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
        with _pool(1) as asked:
            for job in short_of_memory:
                kernels = asked(Preparer.compile, job, None).result()
                ran = kernels.warmed
                if not ran.problem:
                    ran = asked(Preparer.run, job).result()
                mark(kernels, ran)
                yield ran


def compile_in_the_background(work: Sequence[Job], *, processes: int) -> None:
    """Compiles every job's kernels and runs none, beside work that needs the device.

    It says nothing of kernels that cannot be compiled: the other work meets them too.
    """
    with (
        tempfile.TemporaryDirectory(prefix="frontrunner-claims-") as claims,
        _pool(processes, memory=_MEMORY_BESIDE) as asked,
    ):
        for done in as_completed([asked(Preparer.compile, job, Path(claims)) for job in work]):
            done.result()


# The share of the device's memory that compiling takes beside other work.
_MEMORY_BESIDE = 0.15


class _Ask(Protocol):
    """Gives work to the next process that is free, as in `asked(Preparer.run, job)`."""

    def __call__(
        self, method: Callable[Concatenate[Preparer, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> "Future[T]": ...


@contextmanager
def _pool(count: int, *, memory: float = GIVEN_OUT) -> Iterator[_Ask]:
    """Gives a function that gives work to `count` processes. They are killed at the end, whatever they do.

    memory: the share of the device's memory that they use
    """
    room, workers, here = Room(count, memory), [], local()

    def begin() -> None:
        here.worker = Preparer(room)
        workers.append(here.worker)

    def ask(method: Callable[Concatenate[Preparer, P], T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        return threads.submit(lambda: method(here.worker, *args, **kwargs))

    with ThreadPoolExecutor(count, initializer=begin) as threads:
        try:
            yield ask
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.kill()
    for worker in workers:
        worker.close()
