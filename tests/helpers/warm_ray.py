"""Starts Ray's workers as `warm_python` starts processes: each would import torch once and Ray twice.

A node of Ray starts a worker by a script of Ray's. Here that script is `warm_ray_worker`, which asks this
process for the worker. The worker is a child of this process, not of the node, and ends with the node all the
same: Ray's workers look after it themselves.
"""

import json
import os
import socket
import threading
from pathlib import Path

from tests.helpers import warm_python


def serve(folder: Path) -> None:
    """Starts workers from now on, for this process and those that it starts; the socket lies in `folder`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path := str(folder / "warm-ray"))
    listener.listen()
    os.environ[warm_python.RAY_WORKERS] = path
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()


def _serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_worker, args=(connection,), daemon=True).start()


def _worker(connection: socket.socket) -> None:
    """Starts the worker that is asked for, and lets go of the one who asks when it has ended."""
    with connection:
        message, files, *_ = socket.recv_fds(connection, warm_python.LONGEST, 3)
        request = json.loads(message)
        pid = warm_python.child(
            request["words"],
            dict(enumerate(files)),
            environment=request["environment"],
            folder=request["folder"],
        )
        for file in files:
            os.close(file)
        os.waitpid(pid, 0)
