"""A worker of a cluster that pretends to evaluate, in a moment, and writes down what it does.

`job.corpus` is the folder that it writes to.
"""

import os
import time

from operators.base.errors import DeviceError
from search.cluster.worker import home
from tests.helpers.pretended_evaluations import pretended


class PretendWorker:
    def __init__(self, device):
        pass

    def ready(self, *, alone, kinds):
        return home()

    def evaluate(self, job, files):
        note(job.corpus / "begun", job.number)
        time.sleep(0.1)
        note(job.corpus / "evaluated", job.number)
        return pretended(job)

    def measure(self, job, before, kind):
        """Dies or loses its device the first time, where a file in the folder orders it."""
        note(job.corpus / "measured", job.number, kind, *home().types)
        for order in ("die", "break"):
            if (file := job.corpus / f"{order} {job.number}").exists():
                file.unlink()
                if order == "die":
                    os._exit(1)
                raise DeviceError("fell off the bus")
        return before.after({"profile": 0.0})

    def train(self, job, measured, files):
        note(job.corpus / "trained", job.number, *home().types)
        time.sleep(0.3)
        return pretended(job)


def note(path, number, *further):
    line = f"{' '.join(map(str, (number, os.getpid(), *further)))}\n".encode()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line)
    os.close(file)
