"""Makes several trainings at once, on one device or on several.

Each is made in a process of its own, which takes the next one when it is done.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import wait

from operators.base.errors import DeviceError
from profiler.device.gpus import alone
from profiler.process.child_process import Child
from proxy_train.text.corpus import Corpus
from search.evaluation.failures import failure_of
from search.studies import experiment
from search.studies.experiment import Session, Trainable
from search.studies.experiment_store import Training


def train_ahead(at: Session, wanted: Iterable[Trainable]) -> None:
    """Trains and records what has no record yet, where several trainings are made at once.

    Nothing is measured meanwhile. With one device and one training on it, it does nothing: the study makes
    its trainings one after the other, when it asks for them.
    """
    missing = list({one.key: one for one in wanted if one.key not in at.store.trainings}.values())
    if len(at.devices) == 1 or not missing:
        return
    at.console.print(
        f"{len(missing)} trainings, {min(len(missing), len(at.devices))} at a time on "
        f"{', '.join(dict.fromkeys(at.devices))}, the longest first",
        soft_wrap=True,
    )
    with closing(made(missing, at.corpus, at.devices)) as ended:
        for training in ended:
            experiment.record(at, training)


def made(
    wanted: Iterable[Trainable], corpus: Corpus, devices: Sequence[str]
) -> Generator[Training, None, None]:
    """Yields the record of every training as soon as that has ended.

    The longest trainings begin first, so that no device has a long one left when the others are done. Where a
    process dies, its training has failed for that reason, and another process continues. Closing the
    generator ends all processes.

    devices: one for each process; a device that several processes share is there several times.

    Raises DeviceError where no process can be started, and what a training raises that is not the
    architecture's fault.
    """
    waiting = deque(sorted(wanted, key=lambda one: one.work, reverse=True))
    members: list[_Member] = []
    try:
        for device in devices[: len(waiting)]:
            members.append(_Member(device, corpus))
        while members:
            ready = wait([member.child.connection for member in members])
            for member in [member for member in members if member.child.connection in ready]:
                training = member.answer()
                if waiting and not member.died:
                    member.begin(waiting.popleft())
                else:
                    members.remove(member)
                    member.child.close()
                    members += [_Member(member.device, corpus)] if waiting else []
                if training is not None:
                    yield training
    finally:
        for member in members:
            member.child.kill()
        for member in members:
            member.child.close()


class _Member:
    """A process that trains on one device and sees no other.

    Its first answer is that it can begin. Every other answer is the result of a training.
    """

    def __init__(self, device: str, corpus: Corpus) -> None:
        self.device, self.died = device, False
        self._wanted: Trainable | None = None
        self._began = time.perf_counter()
        kind = device.partition(":")[0]  # without an index: the process sees only this device
        self.child = Child(
            "search.studies.training_process", kind, called="training", environment=alone(device)
        )
        self._send(corpus)

    def begin(self, wanted: Trainable) -> None:
        self._wanted, self._began = wanted, time.perf_counter()
        self._send(wanted)

    def answer(self) -> Training | None:
        """Waits for the answer of the process; None is that it can begin.

        Raises what the process could not record, and DeviceError where it died before it could begin.
        """
        try:
            found: Training | Exception | None = self.child.connection.recv()
        except (EOFError, OSError):
            return self._death()
        if isinstance(found, Exception):
            raise found
        return found

    def _death(self) -> Training:
        self.died = True
        if self._wanted is None:
            raise DeviceError(f"device {self.device} cannot be opened: {self.child.death('starting')}")
        failure = failure_of(self.child.death("training"))
        return self._wanted.training(seconds=time.perf_counter() - self._began, **failure.model_dump())

    def _send(self, what: Corpus | Trainable) -> None:
        with suppress(OSError):  # a dead process is noticed when its answer is read
            self.child.connection.send(what)
