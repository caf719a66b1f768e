"""Kernels compile for a Hopper GPU: the interpreter accepts more than the compiler."""

import subprocess
import sys
from pathlib import Path

OF_DECODING, OTHERS = 17, 3


def test_kernels_compile_and_those_of_decoding_wait_for_the_kernel_before(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.helpers.compile_for_hopper"],
        env={"PYTHONPATH": ":".join(sys.path), "TRITON_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    expected = ["early"] * OF_DECODING + ["late"] * OTHERS
    assert [line.split()[1] for line in ran.stdout.splitlines()] == expected
