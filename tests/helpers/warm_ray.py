"""Starts Ray's workers as `warm_python` starts processes: each would import torch once and Ray twice.

A node of Ray starts a worker by a script of Ray's. Here that script is `warm_ray_worker`, which asks a server
for the worker. The server is a process of its own: one that connects to Ray holds Python's lock until a
worker has begun. The worker is a child of the server, not of the node, and ends with the node all the same:
Ray's workers look after it themselves.
"""

import json
import os
import socket
import sys
import threading

from tests.helpers import warm_python


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


def _main() -> None:
    """Serves until standard input ends, which is when the process that asked for the server has ended."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")  # Linux chooses the name
    listener.listen()
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    sys.stdout.write(listener.getsockname().decode().removeprefix("\0") + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    _main()
