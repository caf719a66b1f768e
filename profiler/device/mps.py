"""CUDA's Multi-Process Service (MPS), where a user has started it.

Its server serves other processes, its clients: kernels of several of them then run at the same time. NVIDIA's
driver lists each client with a process id of its own, and the server too, on Hopper.

    https://docs.nvidia.com/deploy/mps
"""

from pathlib import Path

# Linux keeps the first 15 bytes of a process's name.
_SERVER = "nvidia-cuda-mps-server"[:15]


def is_server(pid: int, processes: Path = Path("/proc")) -> bool:
    """Whether a process is a server of MPS, by its name. One that is gone is none.

    processes: the folder that Linux shows processes in
    """
    try:
        return (processes / str(pid) / "comm").read_text(encoding="utf-8").strip() == _SERVER
    except OSError:
        return False
