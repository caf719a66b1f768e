"""The process that `search.studies.parallel` starts to train on a device.

It is started as `python -m search.studies.training_process SOCKET PARENT DEVICE`.
"""

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import TypeVar

from operators.base.errors import BrokenDeviceError, FrontrunnerError
from profiler.device.device import open_device
from profiler.process.child_process import settle_in
from proxy_train.text.corpus import Corpus
from search.studies import experiment

T = TypeVar("T")


def main(socket: int, parent: int, device: str) -> None:
    """Trains what comes through the socket until the other end is closed.

    It answers None once the device is open, then takes a corpus, then trainings, one after the other.

    socket: file descriptor of the connection.
    parent: id of the process that started this one.
    device: where it trains.
    """
    settle_in(parent)
    with Connection(socket) as connection, suppress(EOFError, BrokenPipeError):
        connection.send(_answer(lambda: _open(device)))
        corpus: Corpus = connection.recv()
        while True:
            connection.send(_answer(partial(experiment.outcome, connection.recv(), corpus, device=device)))


def _open(device: str) -> None:
    open_device(device).synchronize()


def _answer(work: Callable[[], T]) -> T | Exception:
    """Returns what `work` returns, or the error that it raised."""
    try:
        return work()
    except BrokenDeviceError as error:
        sys.exit(str(error))  # the parent hears it as the last words, and another process goes on
    except FrontrunnerError as error:
        return type(error)(str(error))
    except Exception as error:  # sent to the parent, which raises it
        defect = RuntimeError(f"{type(error).__name__}: {error}")
        defect.add_note(traceback.format_exc())
        return defect


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
