"""What lives in a worker process of a cluster."""

import os
from contextlib import nullcontext
from dataclasses import dataclass

from profiler.lock import shared
from profiler.worker import ProfilingWorker
from search.evaluate import Job, Outcome, evaluate


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
        """Answers once both processes are up and everything is imported. Unless the worker is `alone`, the caller holds the device's shared lock."""
        with shared(self._device) if alone else nullcontext():
            self._profiler.start()
        return home()

    def evaluate(self, job: Job) -> Outcome:
        """Raises DeviceError, DataError and OSError for what is the fault of this machine."""
        return evaluate(job, self._profiler)


def home() -> Home:
    """Where this process lives. It must be a worker of a cluster."""
    import ray

    return Home(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), os.getpid())
