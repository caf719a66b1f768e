"""Thread counts: numpy's is decided when it is loaded."""

import os
import subprocess
import sys

import pytest

from operators.base.threads import usable_cores

MULTIPLY = """
import os
from operators.base.threads import import_numpy
import_numpy()
import numpy
numpy.ones((800, 800)) @ numpy.ones((800, 800))
print(len(os.listdir("/proc/self/task")), os.environ.get("OPENBLAS_NUM_THREADS"))
"""


def test_usable_cores_are_those_of_the_thread_and_all_where_the_system_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {9, 2}, raising=False)
    assert usable_cores() == [2, 9]
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cores() == [0, 1, 2]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="with one core numpy has one thread anyway")
def test_numpy_has_one_thread_and_nobody_else_is_told(cold_python: None) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    for given, expected in (({}, "1 None"), ({"OPENBLAS_NUM_THREADS": "2"}, "2 2")):
        ended = subprocess.run(
            [sys.executable, "-c", MULTIPLY],
            env={**environment, **given},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout.strip() == expected
