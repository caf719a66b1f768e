"""Runs a module where Triton compiles: the tests' own process may interpret kernels."""

import subprocess
import sys
from pathlib import Path


def printed(module: str, folder: Path, *arguments: str) -> str:
    """What `python -m tests.helpers.MODULE *arguments` prints.

    folder: for temporary files and for kernels
    """
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.helpers.{module}", *arguments],
        env={
            "PYTHONPATH": ":".join(sys.path),
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(folder),
            "TRITON_CACHE_DIR": str(folder / "kernels"),
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout
