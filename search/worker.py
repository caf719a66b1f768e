"""What lives in a worker process of a cluster."""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from profiler.lock import shared
from profiler.worker import ProfilingWorker
from proxy_train.prepare import default_cache
from search.evaluate import Job, Outcome, evaluate
from search.shipping import at_hand


@dataclass(frozen=True)
class Home:
    """Where a worker lives. node: Ray's id of it."""

    node: str
    address: str
    pid: int

    def __str__(self) -> str:
        return f"{self.address} (pid {self.pid})"


class Worker:
    """Evaluates on one device. The process that profiles for it ends with it, however that ends."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._profiler = ProfilingWorker(device)

    def ready(self, *, alone: bool) -> Home:
        """Answers once both processes are up and everything is imported.

        alone: whether nobody holds the device's shared lock for that, as importing loads the device too.
        """
        with shared(self._device) if alone else nullcontext():
            self._profiler.start()
        return home()

    def evaluate(self, job: Job, files: Mapping[str, Any] | None) -> Outcome:
        """files: references to the text's files, for a machine that has them not; None where every one has them.

        Raises DeviceError, DataError and OSError for what is the fault of this machine.
        """
        if files is not None:
            import ray

            job = replace(job, corpus=at_hand(job.corpus, files, fetch=ray.get, cache=default_cache()))
        return evaluate(job, self._profiler)


def home() -> Home:
    """Where this process lives. It must be a worker of a cluster."""
    import ray

    return Home(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), os.getpid())
