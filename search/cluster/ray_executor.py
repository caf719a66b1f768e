"""Runs evaluations in worker processes of a Ray cluster, and survives the loss of any of them."""

import re
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any, Literal

from operators.base.errors import BrokenDeviceError, DataError, DeviceError, RunError, flat
from profiler.device.lock import shared
from proxy_train.images.image_corpus import ImageCorpus
from proxy_train.text.corpus import Corpus
from search.cluster.connect import answers, connect, demands, living, room, spans_machines
from search.cluster.executor import Lost
from search.cluster.shipping import files_of
from search.cluster.steps import Step, assignment, first_step, places
from search.cluster.worker import Files, Home, Worker
from search.evaluation.outcome import Job, Measured, Outcome
from search.evaluation.settled import failure

START_TIMEOUT_S = 120
"""Seconds to wait for the first workers, for the device, or for room in the cluster."""
STILLBORN = 8
"""Workers in a row that may die before they are ready. A node that is lost takes several with it."""
HEAD_CHECK_S = 2.0
"""Seconds between two checks that the cluster's head answers."""
HEAD_PATIENCE_S = 20.0
"""Seconds without an answer of the head that end the search. After a minute Ray would end it silently."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""What colours a text in a terminal. Ray's messages have it."""
FRAME = re.compile(r'  File ".*", line \d+|.*\bray::\S+\(\) \(pid=')
"""A line of Python's traceback, or of Ray's beginning of one."""


@dataclass(eq=False)
class _Member:
    """One worker.

    actor: Ray's handle of it.
    wanted: kind of device that it was started for; empty for any.
    home: where it lives; known once it is ready.
    kinds: kinds of device that the run measures on and it has.
    """

    actor: Any
    wanted: str
    home: Home | None = None
    kinds: frozenset[str] = frozenset()


class RayExecutor:
    """Workers (actors) on a Ray cluster: a local one that ends with this object, or a running one.

    A worker that dies or whose node is lost is replaced as soon as there is room, and its job is Lost. A
    worker that passes the deadline is killed and replaced, and its candidate has the status `timeout`. One
    whose GPU gave up within its process is replaced too, and its job is Lost. A worker whose machine fails
    (device, data or disk) is abandoned and its job is Lost; anything it still returns is ignored. A job of
    several parts (`search.cluster.steps`) that loses one of its workers begins anew.
    """

    def __init__(
        self,
        *,
        workers: int,
        device: str,
        deadline_s: float,
        kinds: Sequence[str] = (),
        on_one_gpu: int = 1,
        address: str | None = None,
        worker: type = Worker,
    ) -> None:
        """Starts as many workers as there is room for. On a running cluster the others join later.

        Raises ConfigError if the cluster does not answer or lacks the devices, DeviceError if its workers
        cannot use the device.

        workers: number of workers.
        device: device of the run.
        deadline_s: seconds of work after which an evaluation is given up.
        kinds: kinds of device that the run measures on. There is at least one worker for each.
        on_one_gpu: workers that share a GPU of device `cuda`.
        address: of a running cluster; None starts a local one.
        worker: class of the actors.
        """
        connect(address, workers=workers)
        import ray

        self._ray, self._device, self._deadline_s, self._remote = ray, device, deadline_s, address is not None
        self._kinds = tuple(kinds)
        # Workers that are starting, by the reference of their first answer.
        self._ready: dict[Any, _Member] = {}
        self._idle: list[_Member] = []
        # Busy workers with their step and its deadline, by the reference of the step's result.
        self._busy: dict[Any, tuple[_Member, Step, float]] = {}
        self._waiting: list[Step] = []
        self._quiet = ExitStack()
        self._far = self._remote and spans_machines(ray.nodes())
        # References to the files of prepared text and images, by their digest and then by name.
        self._files: Files = {}
        self._headless, self._stillborn = False, 0
        self._fault = ""  # the fault of the machine whose worker was abandoned last
        self._head = ray.get_runtime_context().gcs_address
        self._head_answered = self._head_asked = began = time.monotonic()
        # The time when a worker was last there, by its kind.
        self._living = dict.fromkeys(self._kinds or ("",), began)
        self._actors = {
            wanted: ray.remote(max_restarts=0, **demands(device, wanted, on_one_gpu=on_one_gpu))(worker)
            for wanted in ("", *kinds)
        }
        try:
            fitting = room(living(ray.nodes()), device=device, kinds=kinds, on_one_gpu=on_one_gpu)
            count = workers if self._remote else min(workers, fitting)
            self._start([*kinds, *[""] * (count - len(kinds))])
            soon = min(workers, fitting)
            while (
                len(self._idle) < soon
                and (self._ready or not self._idle)
                and time.monotonic() < began + START_TIMEOUT_S
            ):
                self._step()
        except BaseException:
            self.close()
            raise

    @property
    def capacity(self) -> int:
        return max(1, places([*self._idle, *(member for member, _, _ in self._busy.values())], self._kinds))

    def submit(self, job: Job) -> None:
        self._waiting.append(first_step(job))
        self._assign()

    def place(self, number: int) -> str:
        return next(
            (str(member.home) for member, step, _ in self._busy.values() if step.job.number == number), ""
        )

    def next(self) -> tuple[Job, Outcome | Lost]:
        while True:
            if (ended := self._step()) is not None:
                return ended

    def close(self) -> None:
        self._quiet.close()
        members = [*self._idle, *(member for member, _, _ in self._busy.values()), *self._ready.values()]
        self._idle, self._busy, self._ready = [], {}, {}
        self._waiting.clear()
        # Without a head no call would return. The workers then end with this process.
        for member in members if not self._headless else ():
            self._kill(member)
        self._ray.shutdown()

    def _start(self, wanted: Sequence[str]) -> None:
        """Starts new workers. They report when they have finished importing.

        On this machine imports would disturb a measurement, so the device is shared until all workers are
        ready.

        wanted: for each worker the kind of its device; empty for any.
        """
        if not self._remote and not self._ready:
            # A measurement that holds the device for so long hangs. Its own deadline will end it.
            with suppress(DeviceError):
                self._quiet.enter_context(shared(self._device, timeout_s=START_TIMEOUT_S))
        for kind in wanted:
            member = _Member(self._actors[kind].remote(self._device), kind)
            self._ready[member.actor.ready.remote(alone=self._remote, kinds=self._kinds)] = member

    def _assign(self) -> None:
        """Gives waiting steps to idle workers."""
        while self._idle and (
            assigned := assignment(
                self._waiting, self._idle, busy=[(member, step) for member, step, _ in self._busy.values()]
            )
        ):
            step, member = assigned
            self._waiting.remove(step)
            self._idle.remove(member)
            self._busy[self._begun(step, member.actor)] = (
                member,
                step,
                time.monotonic() + step.left_s(self._deadline_s),
            )

    def _begun(self, step: Step, actor: Any) -> Any:
        """Begins a step on a worker, and returns the reference of its result."""
        job = step.job
        if step.kind:
            return actor.measure.remote(job, step.begun(), step.label)
        files = self._shipped(job)
        return (
            actor.evaluate.remote(job, files) if step.whole else actor.train.remote(job, step.begun(), files)
        )

    def _shipped(self, job: Job) -> Files | None:
        """References to the files of a job's text and images, for workers on machines without them.

        None if the cluster is this machine alone.
        """
        if not self._far:
            return None
        data: list[Corpus | ImageCorpus] = [job.corpus, *([job.images] if job.images else [])]
        for prepared in data:
            if prepared.digest not in self._files:
                self._files[prepared.digest] = {
                    name: self._ray.put(content) for name, content in files_of(prepared).items()
                }
        return self._files

    def _step(self) -> tuple[Job, Outcome | Lost] | None:
        """Waits for one event, at most HEAD_CHECK_S. Returns the job that ended, or None."""
        self._assign()
        self._check_workers()
        now = time.monotonic()
        soonest = min((deadline for _, _, deadline in self._busy.values()), default=now + HEAD_CHECK_S)
        done, _ = self._ray.wait(
            [*self._busy, *self._ready], num_returns=1, timeout=max(0.0, min(soonest - now, HEAD_CHECK_S))
        )
        self._check_head()
        if done and done[0] in self._ready:
            self._started(done[0])
        elif done:
            return self._ended(done[0])
        for reference, (member, step, deadline) in list(self._busy.items()):
            if deadline <= time.monotonic():
                del self._busy[reference]
                self._replace(member)
                return step.job, failure(
                    step.job.seed, "timeout", f"not finished after {self._deadline_s:g} s", **step.known()
                )
        return None

    def _started(self, reference: Any) -> None:
        """Takes in a new worker that has reported. reference: of its first answer."""
        member = self._ready.pop(reference)
        if not self._ready:
            self._quiet.close()
        try:
            member.home = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, DeviceError | OSError):
                raise
            self._give_up(member, _line(error.cause))
            return
        except self._ray.exceptions.RayError as error:
            self._await_head()
            self._stillborn += 1
            if self._stillborn > STILLBORN:
                raise RunError(
                    f"no worker can be started, {self._stillborn} in a row died at once: {_line(error)}"
                ) from None
            self._replace(member)
            return
        self._stillborn = 0
        member.kinds = frozenset(self._kinds) & member.home.types
        self._idle.append(member)

    def _ended(self, reference: Any) -> tuple[Job, Outcome | Lost] | None:
        """The job whose step ended; None if it continues with its next part.

        reference: reference of the step's result.
        """
        member, step, _ = self._busy.pop(reference)
        job = step.job
        try:
            result: Outcome | Measured = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, BrokenDeviceError):
                self._replace(member)
                return job, Lost("worker", f"{member.home}: {_line(error.cause)}")
            if not isinstance(error.cause, DeviceError | DataError | OSError):
                raise
            self._give_up(member, _line(error.cause))
            return job, Lost("machine", f"{member.home}: {_line(error.cause)}")
        except self._ray.exceptions.RayError as error:
            self._await_head()
            lost = not self._node_lives(member)
            self._replace(member)
            if lost:
                return job, Lost("machine", f"the node of {member.home} was lost")
            if isinstance(error, self._ray.exceptions.OutOfMemoryError):
                return job, failure(
                    job.seed, "out_of_memory", f"the worker was killed: {_line(error)}", **step.known()
                )
            # A step with a kind only measures, in a process of its own. The candidate cannot end the worker
            # there.
            blame: Literal["machine", "worker"] = "machine" if step.kind else "worker"
            return job, Lost(blame, f"the worker process died: {_line(error)}")
        self._idle.append(member)
        if isinstance(result, Measured):
            self._waiting.append(step.following(result))
        self._assign()
        return None if isinstance(result, Measured) else (job, result)

    def _replace(self, member: _Member) -> None:
        self._kill(member)
        self._start([member.wanted])

    def _kill(self, member: _Member) -> None:
        with suppress(self._ray.exceptions.RaySystemError):  # raised for a worker that never began
            self._ray.kill(member.actor)

    def _give_up(self, member: _Member, fault: str) -> None:
        """Abandons a worker without a replacement, which would fail on that machine too."""
        self._kill(member)
        self._fault = fault

    def _node_lives(self, member: _Member) -> bool:
        return any(
            node["Alive"] for node in self._ray.nodes() if member.home and node["NodeID"] == member.home.node
        )

    def _check_workers(self) -> None:
        """Raises DeviceError or RunError if no worker is left for the work that waits."""
        now, members = time.monotonic(), [*self._idle, *(member for member, _, _ in self._busy.values())]
        for kind, last in self._living.items():
            which = f"worker with {kind}" if kind else "worker"
            wanted = not members or any(step.kind == kind for step in self._waiting)
            if not wanted or any(not kind or kind in member.kinds for member in members):
                self._living[kind] = now
            elif not self._ready:
                raise DeviceError(f"no {which} is left: {self._fault}")
            elif now - last > START_TIMEOUT_S:
                lacks = (
                    f"the cluster has had no room for a {which} for {START_TIMEOUT_S} s"
                    if self._remote
                    else f"no {which} has started for {START_TIMEOUT_S} s, as on a machine with too much work"
                )
                raise RunError(f"{lacks}; `frontrunner resume` continues the run when there is room")

    def _check_head(self) -> None:
        """Checks every HEAD_CHECK_S that the head answers. Raises RunError as `_head_answers` does."""
        if time.monotonic() - self._head_asked >= HEAD_CHECK_S:
            self._head_asked = time.monotonic()
            self._head_answers()

    def _await_head(self) -> None:
        """Waits until the head answers. Raises RunError as `_head_answers` does.

        It is called before calls that Ray passes to its head, which would never return without one.
        """
        while not self._head_answers():
            time.sleep(HEAD_CHECK_S / 4)

    def _head_answers(self) -> bool:
        """Whether the cluster's head answers. Raises RunError if it has not for HEAD_PATIENCE_S."""
        if answers(self._head, timeout_s=HEAD_CHECK_S):
            self._head_answered = time.monotonic()
            return True
        if time.monotonic() - self._head_answered > HEAD_PATIENCE_S:
            self._headless = True
            raise RunError(
                f"the head of the Ray cluster at {self._head} does not answer any more; "
                "all records are kept, `frontrunner resume` continues the run once the head is back"
            )
        return False


def _line(error: BaseException) -> str:
    """The message of an error in one line. Of a traceback, only the error at its end."""
    text = COLOUR.sub("", str(error))
    lines = text.splitlines()
    frames = [number for number, line in enumerate(lines) if FRAME.match(line)]
    if frames:
        reason = list(dropwhile(lambda line: line[:1].isspace(), lines[frames[-1] + 1 :]))
        if flat("\n".join(reason)):
            return flat("\n".join(reason), at_most=300)
    # Ray describes a dead worker in lines that begin with a tab, before it says how it died.
    first = text.split("\n\n")[0].splitlines()
    return flat("\n".join(line for line in first if not line.startswith("\t")), at_most=300)
