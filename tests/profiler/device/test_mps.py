"""Which process is a server of CUDA's Multi-Process Service, by what Linux tells of it."""

import os
from pathlib import Path

import pytest

from profiler.device.mps import is_server


@pytest.mark.parametrize(
    ("name", "serves"), [("nvidia-cuda-mps", True), ("nvidia-cuda-mps-server", False), ("python3", False)]
)
def test_a_server_is_known_by_the_first_15_bytes_of_its_name(tmp_path: Path, name: str, serves: bool) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "comm").write_text(f"{name}\n")
    assert is_server(7, tmp_path) is serves
    assert not is_server(8, tmp_path)  # gone


def test_this_process_is_none() -> None:
    assert not is_server(os.getpid())
