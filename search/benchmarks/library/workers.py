"""Benchmark: a search through Ray with hundreds of workers that answer at once.

Evaluations are made up and cost nothing, so that Ray and the process that drives the search are at work all
the time. The figures say how long the workers take to start, how many evaluations a second are recorded, the
driver's own processor time for each, and whether the ledger lost or doubled any. Of the 200 workers that are
asked for, so many start as fit into this machine's memory.

    frontrunner bench workers
"""

import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

from profiler.device.device import open_device
from proxy_train.text.corpus import Corpus
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.made_up_run import VOCABULARY, config
from search.benchmarks.made_up_worker import MadeUpWorker
from search.benchmarks.tables import print_figures
from search.cluster.executor import Executor
from search.cluster.ray_executor import RayExecutor
from search.runs import ledger as ledger_module
from search.runs.entry import Entry
from search.runs.folder import RunFolder
from search.runs.loop import drive
from search.runs.preflight import Prepared
from search.spaces.free import ArchitectureSpace

WORKERS = 200
EVALUATIONS_EACH = 5
# A worker that has imported PyTorch and Ray has 0.19 GiB for itself; this leaves some memory (bytes).
BYTES_EACH = 0.3 * 2**30
DEADLINE_S = 600.0
# Nothing opens it.
_NO_TEXT = Corpus(Path(), VOCABULARY, "uint16", 0, 1, 0, 0, 0.0, "")


def workers(device: str, console: Console) -> Measured:
    """Times of a search through Ray, and what its ledger has."""
    fitting = int(open_device("cpu").free_memory() / BYTES_EACH)
    figures = through_ray(max(1, min(WORKERS, fitting)), EVALUATIONS_EACH)
    print_figures(console, figures)
    return Measured(figures, [])


def through_ray(count: int, each: int) -> Figures:
    """Drives a search. count: workers. each: evaluations for each worker, on average."""
    settings = config(count * each).model_copy(update={"workers": count})
    prepared = Prepared(settings, _NO_TEXT, ArchitectureSpace(settings.space, VOCABULARY))
    began = time.monotonic()
    executor = RayExecutor(workers=count, device="cpu", deadline_s=DEADLINE_S, worker=MadeUpWorker)
    try:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            driver = time.process_time()
            entries = _driven(RunFolder(Path(place)), prepared, executor)
            driver = time.process_time() - driver
        capacity, took = executor.capacity, time.monotonic() - started
    finally:
        executor.close()
    return {
        "workers_asked": WORKERS,
        "workers_that_fit": count,
        "workers_at_the_end": capacity,
        "start_s": round(started - began, 1),
        "evaluations": len(entries),
        "evaluations_per_s": round(len(entries) / took, 1),
        "driver_cpu_ms": round(1e3 * driver / len(entries), 1),
        "driver_peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        **lost_and_doubled(entries, settings.candidates),
    }


def _driven(folder: RunFolder, prepared: Prepared, executor: Executor) -> tuple[Entry, ...]:
    """The run's ledger after the search, as another process reads it."""
    ledger = ledger_module.create(folder.ledger, prepared.config, started="now")
    drive(prepared, folder, ledger, executor)
    ledger.close()
    reader = ledger_module.open_ledger(folder.ledger)
    entries = reader.entries()
    reader.close()
    return entries


def lost_and_doubled(entries: tuple[Entry, ...], wanted: int) -> Figures:
    """How many of the wanted evaluations a ledger lacks, and how many it has or began more than once."""
    ended = Counter(entry.number for entry in entries if entry.evaluation is not None)
    orders = Counter(entry.order for entry in entries if entry.order is not None)
    doubled = sum(count - 1 for counts in (ended, orders) for count in counts.values())
    doubled += len(entries) - len({entry.architecture.digest() for entry in entries})
    return {
        "lost": wanted - len(ended),
        "doubled": doubled,
        "begun_again": sum(len(entry.attempts) > 1 for entry in entries),
    }


BENCHMARK = Benchmark("workers", "a search through Ray with hundreds of workers that answer at once", workers)
