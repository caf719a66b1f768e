"""The script that a node of Ray starts for each worker, see `warm_ray`. It imports nothing large."""

import json
import os
import socket
import sys
from pathlib import Path


def main() -> None:
    """Asks for the worker, and ends when it has ended."""
    options = ("--serialized-runtime-env-context=", "--language=")  # for Ray's own script
    request = {
        "words": [sys.executable, *(word for word in sys.argv[1:] if not word.startswith(options))],
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
        asked.connect(os.environ["FRONTRUNNER_TESTS_WARM_RAY"])
        socket.send_fds(asked, [json.dumps(request).encode()], [0, 1, 2])
        asked.recv(1)


if __name__ == "__main__":
    main()
