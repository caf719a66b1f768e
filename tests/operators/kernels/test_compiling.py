"""What is done around each compilation of a kernel: a device that is held is left meanwhile."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_a_device_is_free_while_a_kernel_compiles_for_its_holder(tmp_path: Path) -> None:
    """In a process of its own, as this one may interpret kernels."""
    folders = {"TRITON_CACHE_DIR": str(tmp_path / "kernels"), "TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.helpers.compile_outside_the_lock"],
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", **folders},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout) == {
        "while _one compiles": True,
        "behind it": False,
        "while _two compiles": True,
        "while _wrong compiles": True,
        "refused": True,
        "behind the wrong one": False,
        "at the end": True,
    }
