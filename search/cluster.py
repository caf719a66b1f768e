"""Where evaluations run: in this process, or in worker processes of a Ray cluster."""

import os
import signal
import socket
import time
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from operators.errors import ConfigError, DeviceError
from profiler.lock import shared
from profiler.worker import ProfilingWorker
from search.evaluate import Job, Outcome, evaluate, failure

START_TIMEOUT_S = 120


class Executor(Protocol):
    """Runs jobs. At most `capacity` may be under way at once."""

    capacity: int

    def submit(self, job: Job) -> None:
        """Starts a job; returns at once."""

    def next(self) -> tuple[Job, Outcome]:
        """Waits for the next finished job, in the order in which they end."""

    def close(self) -> None:
        """Gives up what is under way and frees everything."""


class InlineExecutor:
    """One job after the other, trained in this process, for debugging and tests. The deadline holds for profiling alone.

    Profiling has its own process here too: a candidate that crashes must not end the search, and its figures must not depend on what this
    process did before.
    """

    capacity = 1

    def __init__(self, device: str) -> None:
        self._waiting: deque[Job] = deque()
        self._profiler = ProfilingWorker(device)

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def next(self) -> tuple[Job, Outcome]:
        job = self._waiting.popleft()
        return job, evaluate(job, self._profiler)

    def close(self) -> None:
        self._waiting.clear()
        self._profiler.close()


class RayExecutor:
    """Worker processes (actors) on a Ray cluster: a local one that ends with this object, or a running one at `address`.

    A worker that dies gives its candidate the status `crashed`, one that passes the deadline is killed and gives `timeout`;
    either is replaced.
    """

    def __init__(self, *, workers: int, device: str, deadline_s: float, address: str | None = None) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # off: a local cluster listens on loopback alone
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # every worker sees every GPU, and `device` says which it takes
        if address is None or _has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray asks for its token by default, but tells a client of it too late
        if address is not None:
            _check_answers(address)
        import ray

        self._ray = ray
        on_terminate = signal.getsignal(signal.SIGTERM)
        self.capacity, self._deadline_s = workers, deadline_s
        common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        if address is None:
            memory = 512 * 2**20
            ray.init(address="local", num_cpus=workers, include_dashboard=False, object_store_memory=memory, **common)
        else:
            try:
                ray.init(address=address, **common)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ConfigError(f"--address {address}: no Ray cluster answers there: {' '.join(str(error).split())[:200]}") from None
        signal.signal(signal.SIGTERM, on_terminate)  # Ray puts its own in place, which ends the process without a word of ours
        self._worker_class = ray.remote(num_cpus=1, max_restarts=0)(_Worker)
        self._device = device
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Job, float]] = {}
        try:
            self._idle = self._started(workers)
        except BaseException:
            self.close()
            raise

    def _started(self, count: int) -> list[Any]:
        """New workers that have finished importing: that must not fall into a measurement.

        Raises ConfigError if there is no room, DeviceError where they cannot use the device.
        """
        with ExitStack() as quiet:
            with suppress(DeviceError):  # who measures for so long hangs, and will be found out by its deadline
                quiet.enter_context(shared(self._device, timeout_s=START_TIMEOUT_S))
            workers = [self._worker_class.remote(self._device) for _ in range(count)]
            try:
                self._ray.get([worker.ready.remote() for worker in workers], timeout=START_TIMEOUT_S)
            except self._ray.exceptions.GetTimeoutError:
                cores = self._ray.cluster_resources().get("CPU", 0)
                raise ConfigError(f"{count} workers did not start within {START_TIMEOUT_S} s: the cluster has {cores:g} CPUs") from None
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            return workers

    def submit(self, job: Job) -> None:
        worker = self._idle.pop() if self._idle else self._started(1)[0]
        self._busy[worker.evaluate.remote(job)] = (worker, job, time.monotonic() + self._deadline_s)

    def next(self) -> tuple[Job, Outcome]:
        while True:
            now = time.monotonic()
            soonest = min(deadline for _, _, deadline in self._busy.values())
            done, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=max(0.0, soonest - now))
            if done:
                worker, job, _ = self._busy.pop(done[0])
                try:
                    outcome = self._ray.get(done[0])
                except self._ray.exceptions.RayError as error:
                    self._ray.kill(worker)
                    reason = " ".join(str(error).split("\n\n")[0].split())
                    if isinstance(error, self._ray.exceptions.OutOfMemoryError):
                        return job, failure(job, "out_of_memory", f"the worker was killed: {reason}"[:500])
                    return job, failure(job, "crashed", f"the worker process died: {reason}"[:500])
                self._idle.append(worker)
                return job, outcome
            for reference, (worker, job, deadline) in list(self._busy.items()):
                if deadline <= time.monotonic():
                    del self._busy[reference]
                    self._ray.kill(worker)
                    return job, failure(job, "timeout", f"not finished after {self._deadline_s:g} s")

    def close(self) -> None:
        for worker in [*self._idle, *(worker for worker, _, _ in self._busy.values())]:
            self._ray.kill(worker)
        self._idle, self._busy = [], {}
        self._ray.shutdown()


def _has_token() -> bool:
    """Whether there is a token of Ray's for this user."""
    kept = Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")) or kept.is_file()


def _check_answers(address: str) -> None:
    """Raises ConfigError where nobody listens at HOST:PORT: Ray itself takes minutes to say so. Other forms are Ray's to check."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--address {address}: no Ray cluster answers there: {error}") from None


class _Worker:
    """Lives in a worker process. The process that profiles for it ends with it, however that ends."""

    def __init__(self, device: str) -> None:
        self._profiler = ProfilingWorker(device)

    def ready(self) -> None:
        """Answers once both processes are up and everything is imported. Whoever calls holds the device's shared lock."""
        self._profiler.start()

    def evaluate(self, job: Job) -> Outcome:
        return evaluate(job, self._profiler)
