"""The process of a `profiler.kernels.preparer.Preparer`, which serves its requests.

Its command: python -m profiler.kernels.preparer_process SOCKET PARENT
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

import torch

from profiler.kernels.prepare import compile_kernels, run
from profiler.kernels.preparer import Done, Request, Wants
from profiler.process.child_process import settle_in


def main(socket: int, parent: int) -> None:
    """Serves requests until the other end is closed."""
    settle_in(parent)
    with Connection(socket) as connection, suppress(EOFError, BrokenPipeError):

        @contextmanager
        def take_room(size: int) -> Iterator[None]:
            free, _ = torch.cuda.mem_get_info()
            connection.send(Wants(size, free))
            connection.recv()
            try:
                yield
            finally:
                connection.send(Wants(-size, free))

        while True:
            request: Request = connection.recv()
            outcome = (
                compile_kernels(request.job, request.claims, take_room=take_room)
                if request.compiles
                else run(request.job, take_room=take_room)
            )
            connection.send(Done(outcome, fit=_fit()))


def _fit() -> bool:
    """Whether the device still answers: after an illegal access every call of this process fails."""
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
