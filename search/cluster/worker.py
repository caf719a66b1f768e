"""What lives in a worker process of a cluster."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from profiler.device.device import open_device
from profiler.device.lock import shared
from profiler.process.worker import ProfilingWorker
from proxy_train.text.prepare import default_cache
from search.cluster.connect import types_of
from search.cluster.shipping import at_hand
from search.evaluation.evaluate import evaluate, measure, train_measured
from search.evaluation.outcome import Job, Measured, Outcome


@dataclass(frozen=True)
class Home:
    """Where a worker lives. node: Ray's id of it. types: of accelerator that it has."""

    node: str
    address: str
    pid: int
    types: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.address} (pid {self.pid})"


class Worker:
    """Evaluates on one device. The process that profiles for it ends with it, however that ends."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._profiler = ProfilingWorker(device)

    def ready(self, *, alone: bool, kinds: Sequence[str]) -> Home:
        """Answers once everything is imported and, where it can measure on one of the `kinds` or there are none, its second process is up.

        alone: whether nobody holds the device's shared lock for that, as importing loads the device too.
        """
        found = home()
        with shared(self._device) if alone else nullcontext():
            if kinds and found.types.isdisjoint(kinds):
                open_device(self._device)
            else:
                self._profiler.start()
        return found

    def evaluate(self, job: Job, files: Mapping[str, Any] | None) -> Outcome:
        """files: references to the text's files, for a machine that has them not; None where every one has them.

        Raises DeviceError, DataError and OSError for what is the fault of this machine.
        """
        return evaluate(_with_text(job, files), self._profiler)

    def measure(self, job: Job, before: Measured, kind: str) -> Measured | Outcome:
        """The first part of an evaluation, see `search.evaluation.evaluate.measure`; raises as `evaluate` does."""
        return measure(job, self._profiler, before, kind=kind)

    def train(self, job: Job, measured: Measured, files: Mapping[str, Any] | None) -> Outcome:
        """The other part; `files` and what it raises as for `evaluate`."""
        return train_measured(_with_text(job, files), measured)


def _with_text(job: Job, files: Mapping[str, Any] | None) -> Job:
    if files is None:
        return job
    import ray

    return replace(job, corpus=at_hand(job.corpus, files, fetch=ray.get, cache=default_cache()))


def home() -> Home:
    """Where this process lives. It must be a worker of a cluster."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    resources = next(found["Resources"] for found in ray.nodes() if found["NodeID"] == node)
    return Home(node, ray.util.get_node_ip_address(), os.getpid(), types_of(resources))
