"""The worker process of a cluster."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from operators.backends import load_libraries
from profiler.device.device import open_device
from profiler.device.lock import shared
from profiler.device.names import computes_on
from profiler.process.worker import ProfilingWorker
from proxy_train.cache import default_cache
from search.cluster.connect import types_of
from search.cluster.shipping import at_hand
from search.evaluation.evaluate import evaluate, measure
from search.evaluation.outcome import Job, Measured, Outcome
from search.evaluation.training import train_measured

Files = dict[str, dict[str, Any]]
"""References to the files of prepared text and images, by their digest and then by name."""


@dataclass(frozen=True)
class Home:
    """The place where a worker lives.

    node: Ray's id of its node.
    address: address of the node.
    pid: id of the worker's process.
    types: types of accelerator of the node.
    """

    node: str
    address: str
    pid: int
    types: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.address} (pid {self.pid})"


class Worker:
    """Evaluates candidates on one device. Its profiling process ends with it, even if it is killed.

    device: device of the run.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._profiler = ProfilingWorker(device)

    def ready(self, *, alone: bool, kinds: Sequence[str]) -> Home:
        """Answers once everything is imported and its profiling process, if it will measure, has started.

        alone: take the device's shared lock meanwhile, as imports load the device. Otherwise the caller holds
            it.
        kinds: kinds of device that the run measures on. A worker without any of them only trains.
        """
        here = home()
        with shared(self._device) if alone else nullcontext():
            if kinds and here.types.isdisjoint(kinds):
                open_device(self._device, engines=True)
            else:
                # The process ends with the thread that starts it, which this one outlives.
                with ThreadPoolExecutor(1) as beside:
                    if computes_on(self._device) != "cpu":
                        beside.submit(load_libraries)
                    self._profiler.start()
        return here

    def evaluate(self, job: Job, files: Files | None) -> Outcome:
        """Makes a whole evaluation. Raises DeviceError, DataError or OSError for faults of this machine.

        files: for machines without the text and the images; None if all machines have them.
        """
        return evaluate(_with_data(job, files), self._profiler)

    def measure(self, job: Job, before: Measured, kind: str) -> Measured | Outcome:
        """Makes the first part of an evaluation, see `search.evaluation.evaluate`. Raises as `evaluate`."""
        return measure(job, self._profiler, before, kind=kind)

    def train(self, job: Job, measured: Measured, files: Files | None) -> Outcome:
        """Makes the other part of an evaluation. Raises as `evaluate`; files: as there."""
        return train_measured(_with_data(job, files), measured)


def _with_data(job: Job, files: Files | None) -> Job:
    """The job with text and images that lie on this machine."""
    if files is None:
        return job
    import ray

    here = partial(at_hand, fetch=ray.get, cache=default_cache())
    images = here(job.images, files[job.images.digest]) if job.images else None
    return replace(job, corpus=here(job.corpus, files[job.corpus.digest]), images=images)


def home() -> Home:
    """The place where this process lives. It must be a worker of a cluster."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    resources = next(each["Resources"] for each in ray.nodes() if each["NodeID"] == node)
    return Home(node, ray.util.get_node_ip_address(), os.getpid(), types_of(resources))
